"""Writes down every optimizer step of every Python process below, without a change to the script that is measured.

Python imports a module of this name by itself when it starts, if the folder is on PYTHONPATH. A process that steps
appends a line "time pid rank" for each step to the file that STEP_TRACE names. torch is not imported here:
a process that would do without it must not be charged for it. So an import hook waits until torch's optimizers load.
"""

import os
import sys
import time
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

OPTIMIZERS = "torch.optim.optimizer"


def record(*_):
    line = f"{time.time()} {os.getpid()} {os.environ.get('RANK', '0')}\n"
    file = os.open(os.environ["STEP_TRACE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, line.encode())  # one write, so that lines of several processes never mix
    os.close(file)


class WaitForTorch(MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname != OPTIMIZERS:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        execute = spec.loader.exec_module

        def execute_and_hook(module):
            execute(module)
            module.register_optimizer_step_post_hook(record)

        spec.loader.exec_module = execute_and_hook
        return spec


if "STEP_TRACE" in os.environ:
    sys.meta_path.insert(0, WaitForTorch())
