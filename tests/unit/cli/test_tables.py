"""Tables on terminals of any width: nothing of them is cut."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.table import Table

from edgecloud.cli import bench, evaluate, export
from edgecloud.cli.data import _classes as classes_of_data
from edgecloud.cli.tables import print_whole
from edgecloud.edge.report import Report
from edgecloud_trainer.appraisal.appraising import Appraisal, ask
from edgecloud_trainer.data.manifest import Counts, Manifest
from tests.unit.appraisal.test_material import Reads, made, nothing, opened
from tests.unit.edge.made import export_card
from tests.unit.export.test_page import measured, ratio, report

WIDTHS = [1, 20, 40, 60, 80, 100]
CLASSES = ("b" * 30 + " and more", "[red]dog")


def shown(table: Table, width: int) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width)
    print_whole(table, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def cells(lines: list[str]) -> list[list[str]]:
    """What stands between the lines of a table, row by row."""
    return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines if line[0] in "│┃"]


def columns(lines: list[str]) -> list[str]:
    """The letters of each column, wherever it is folded."""
    return [re.sub(r"\s", "", "".join(column)) for column in zip(*cells(lines), strict=True)]


def exported() -> Report:
    int8 = measured("onnx-int8", accuracy=0.98765, lost=1.0017).model_copy(
        update={"path": "model-int8.onnx", "bytes": 123_456_789, "ratios": (ratio(0.041, 0.042, 0.043),)}
    )
    return report(measured().model_copy(update={"path": "model.onnx"}), int8, measured("pt2"))


@pytest.mark.parametrize("width", [*WIDTHS, 200, None])
def test_an_exports_figures(width: int | None) -> None:
    lines = shown(export._table(exported(), width), width or 80)
    found = cells(lines)
    if width is not None and width < 120:
        found = [list(row) for row in zip(*found, strict=True)]
        assert max(map(len, lines)) <= 80, "the files beside each other fit the usual terminal"
    assert found[0] == [*export._COLUMNS]
    assert found[2] == [
        "model-int8.onnx", "123.46", "1/0.01", "98.77 %", "1.002", "99.00 %", "1.00", "3.00", "x23.81 [23.26, 24.39]",
        "failed",
    ]  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("models", [1, 2])
def test_the_classes_of_models(width: int, models: int) -> None:
    model, material = opened(Reads(wrong=(3, 7), classes=2), export_card(classes=CLASSES)), made(30, CLASSES)
    one = Appraisal(opened=model, material=material, answers=ask(model, material, nothing))
    table = evaluate._classes([one] * models)
    assert columns(shown(table, width)) == columns(shown(table, 200))
    assert columns(shown(table, width))[:2] == ["class" + "".join(CLASSES).replace(" ", ""), "images1515"]


@pytest.mark.parametrize("width", WIDTHS)
def test_speeds(width: int) -> None:
    one = bench.Measured(
        workers=1000, samples_per_second=1_234_567.0, communication_fraction=0.1234, data_fraction=1.0, accuracy=0.98765
    )
    table = bench._table([one])
    lines = shown(table, width)
    assert columns(lines) == columns(shown(table, 200))
    assert cells(lines)[-1] == ["1000", "1,234,567", "1.00", "100%", "12.3%", "100.0%", "98.77%"]
    assert max(map(len, lines)) <= max(width, 80)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_classes_of_data(width: int) -> None:
    counts = Counts(images=1_234_567_890, per_class=(1_234_567_880, 10))
    manifest = Manifest.model_construct(classes=CLASSES, splits={"train": counts, "validation": counts, "test": counts})
    head, *lines = (line.split() for line in shown(classes_of_data(manifest), width))
    assert head == ["CLASS", "TRAIN", "VALIDATION", "TEST"]
    assert [line[-3:] for line in lines if line[-1][-1].isdigit()] == [["1,234,567,880"] * 3, ["10"] * 3]
    assert "".join(word for line in lines for word in line if not word[0].isdigit()) == "".join(CLASSES).replace(
        " ", ""
    )
