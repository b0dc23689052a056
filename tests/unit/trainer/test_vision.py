"""torchvision without the compiler, and with it where a release of it takes more than the one function."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from edgecloud_trainer import vision
print(vision.part('models').FOUND, 'torch._dynamo' in sys.modules)
"""


@pytest.mark.parametrize(
    ("taken", "printed"), [("is_compile_supported", "found False"), ("is_compile_supported, counters", "found True")]
)
def test_what_torchvision_takes_of_the_compiler(taken: str, printed: str, tmp_path: Path) -> None:
    for name, text in {
        "torch/__init__.py": "",
        "torch/_dynamo/__init__.py": "",
        "torch/_dynamo/utils.py": "is_compile_supported = counters = None",
        "torchvision/__init__.py": "from torchvision import models",
        "torchvision/ops.py": f"from torch._dynamo.utils import {taken}",
        "torchvision/models.py": "from torchvision import ops\nFOUND = 'found'",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == printed, done.stderr
