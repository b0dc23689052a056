"""`edgecloud bench` from outside: what was measured stays, however a later size ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.local import EDGECLOUD, job_dict, wait_for

PROGRAM = """
import os, sys, time
from pathlib import Path
from edgecloud import worker

size = int(os.environ["WORLD_SIZE"])
worker.report(step=1, total_steps=1, samples_per_second=100 * size)
if size == 2:
    if os.environ["HOW"] == "fails":
        sys.exit(2)
    Path(os.environ["HOW"]).touch()
    time.sleep(60)
"""


@pytest.mark.parametrize(("how", "code"), [("fails", 1), ("is stopped", 130)])
def test_a_size_that_fails_takes_no_other_with_it(tmp_path: Path, how: str, code: int) -> None:
    job = job_dict("own", ["python", "-c", PROGRAM])
    there = tmp_path / "there"
    value = "fails" if how == "fails" else str(there)
    job["spec"]["program"]["env"] = [{"name": "HOW", "value": value}]
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(job))
    bench = subprocess.Popen(
        [EDGECLOUD, "bench", file, "--workers", "1,2,3", "--workdir", tmp_path / "work", "-o", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        if how == "is stopped":
            wait_for("the second size", lambda: there.exists() or bench.poll() is not None)
            os.killpg(bench.pid, signal.SIGINT)  # as a terminal does
        printed, said = bench.communicate(timeout=60)
    finally:
        if bench.poll() is None:
            os.killpg(bench.pid, signal.SIGKILL)
    assert bench.returncode == code, said
    last = said.splitlines()[-1]
    assert last.startswith(
        f"edgecloud bench: no speed with 2 workers (and not tried: 3): the run ended with exit code {code}"
    )
    assert ("BadConfiguration" in last) == (how == "fails")
    measured: list[dict[str, Any]] = json.loads(printed)
    assert [(one["workers"], one["samples_per_second"]) for one in measured] == [(1, 100.0)]
    assert json.loads((tmp_path / "work/bench.json").read_text()) == measured
    assert (tmp_path / "work/bench.png").exists()
