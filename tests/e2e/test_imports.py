"""What a training process imports: every worker and every standby pays for it, in time and in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch._dynamo", "torch._inductor", "sympy", "sklearn", "scipy", "pandas", "IPython")


@pytest.mark.parametrize(
    ("model", "optimizer", "deterministic"),
    [("article-cnn", "sgd", False), ("article-cnn", "muon", True), ("shufflenet_v2_x0_5", "adamw", False)],
)
def test_a_training_process_takes_no_more_than_it_needs(
    tmp_path: Path, model: str, optimizer: str, deterministic: bool
) -> None:
    trainer = {
        "model": model,
        "data": {"name": "digits"},
        "epochs": 1,
        "optimizer": {"name": optimizer, "learningRate": 0.001},
        "deterministic": deterministic,
    }
    environment = os.environ | {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "EDGECLOUD_ROUND": "1",
        "EDGECLOUD_TRAINER": json.dumps({"trainer": trainer, "storage": {}}),
        "EDGECLOUD_CHECKPOINT_DIR": str(tmp_path / "checkpoints"), "EDGECLOUD_RESULTS_DIR": str(tmp_path / "results"),
    }  # fmt: skip
    command = [sys.executable, "-X", "importtime", "-m", "edgecloud_trainer.train"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "torch" in imported
    assert sorted(imported & set(HEAVY)) == []
    assert model != "article-cnn" or not any(name.startswith("torchvision") for name in imported)
