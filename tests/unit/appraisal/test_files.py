"""An appraisal's files: all there and whole, or none left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from edgecloud_trainer.appraisal.appraising import Comparison
from edgecloud_trainer.appraisal.files import write_appraisal, write_calibration, write_comparison
from tests.unit.appraisal.test_material import Reads, appraised, made


def test_files_of_one_model(tmp_path: Path) -> None:
    found = appraised(Reads(wrong=(1, 2)), made(30))
    written = [*write_appraisal(found, tmp_path), write_calibration([found], ["model"], tmp_path)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)
    assert {path.name for path in written} == {"evaluation.json", "confusion.png", "worst.png", "calibration.png"}
    assert json.loads((tmp_path / "evaluation.json").read_text())["correct"] == 28
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 100


def test_files_of_two_models(tmp_path: Path) -> None:
    material = made(30)
    both = Comparison(first=appraised(Reads(wrong=(1, 2)), material), second=appraised(Reads(), material))
    written = write_comparison(both, ("one", "two"), tmp_path)
    assert [path.name for path in written] == ["comparison.json", "differences.png"]
    same = Comparison(first=both.first, second=both.first)
    assert [path.name for path in write_comparison(same, ("one", "two"), tmp_path)] == ["comparison.json"]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "worst.png").mkdir()
    found = appraised(Reads(), made(30))
    with pytest.raises(OSError):
        write_appraisal(found, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"evaluation.json", "confusion.png", "worst.png"}
