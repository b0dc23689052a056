"""Models measured against reference images: figures that are known beforehand, and models that can't be measured."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from edgecloud.edge import footprint as footprints
from edgecloud.edge import measuring
from edgecloud.edge.intervals import wilson
from edgecloud.edge.latency import Budget, Times, by_turns
from edgecloud.edge.measuring import MeasureError, measure
from edgecloud.edge.reference import Reference, load_reference, save_reference
from edgecloud.edge.report import summary
from edgecloud.edge.runtime import EdgeModel, open_onnx
from tests.unit.edge.export import IMAGES, folder
from tests.unit.edge.made import linear, weights, write


def test_two_models(tmp_path: Path) -> None:
    export = folder(tmp_path, off=3.0)
    seen: list[tuple[str, float]] = []
    said: dict[str, np.ndarray] = {}
    plain, raised = measure(
        export, ("onnx", "onnx-int8"), max_accuracy_loss=1.0, seconds=0.2, on_progress=lambda *step: seen.append(step),
        on_logits=said.__setitem__,
    )  # fmt: skip
    original = load_reference(export / "reference.npz").logits
    np.testing.assert_allclose(said["onnx"], original, atol=1e-4)
    np.testing.assert_allclose(said["onnx-int8"], np.add(original, [3, 0, 0]), atol=1e-4)
    assert plain.accuracy == 0.9
    assert (plain.accuracy_interval.low, plain.accuracy_interval.high) == wilson(54, IMAGES)
    assert plain.parity.agreement == 1.0
    assert plain.parity.max_difference < 1e-4
    assert plain.gate.passed
    assert plain.gate.accuracy_loss == pytest.approx(0)
    assert plain.ratios == ()

    reference = load_reference(export / "reference.npz")
    wrong = (reference.logits + np.array([3, 0, 0])).argmax(1) != reference.labels
    assert raised.accuracy == pytest.approx(1 - wrong.mean())
    assert raised.accuracy < 0.89
    assert raised.parity.max_difference == pytest.approx(3, abs=1e-4)
    assert not raised.gate.passed
    assert raised.gate.message.startswith("model-int8.onnx loses")
    assert {one.against for one in raised.ratios} == {"onnx"}
    settings = [(one.batch, one.threads) for one in raised.latencies]
    assert [(one.batch, one.threads) for one in raised.ratios] == settings
    assert settings[:2] == [(1, 1), (32, 1)]

    for one in (plain, raised):
        assert one.bytes == (export / one.path).stat().st_size
        assert one.latency == one.latencies[0]
        assert one.latency.runs >= 10
        assert 0 < one.latency.p50 <= one.latency.p90 <= one.latency.p99 < 1000
        assert one.load_milliseconds > 0
        assert one.memory is not None
        assert 10 * 2**20 < one.memory.loaded <= one.memory.peak < 2**30
    assert summary(raised)["gate"] == "failed"
    assert seen[0] == ("accuracy of onnx", 0.0)
    assert seen[-1] == ("done", 1.0)
    assert [part for _, part in seen] == sorted(part for _, part in seen)


class Ours:
    """A model of another kind: the trainer adds such ones."""

    def __init__(self, path: Path, threads: int) -> None:
        assert path.name == "model.pt2"
        self._model: EdgeModel = open_onnx(path.with_name("model.onnx"), threads)
        self.card = self._model.card

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        return self._model.logits(pixels)


def test_a_format_of_the_callers(tmp_path: Path, one_load: None) -> None:
    export = folder(tmp_path)
    (export / "model.pt2").write_text("whatever it is")
    (found,) = measure(export, ("pt2",), max_accuracy_loss=1.0, openers={"pt2": Ours}, seconds=0.1)
    assert (found.format, found.path, found.accuracy, found.bytes) == ("pt2", "model.pt2", 0.9, 14)
    assert found.ratios == ()


def test_models_that_cannot_be_measured(tmp_path: Path, one_load: None) -> None:
    export = folder(tmp_path)

    def refused(said: str, format: str | None) -> None:
        with pytest.raises(MeasureError, match=said) as error:
            measure(export, ("onnx", "onnx-int8"), max_accuracy_loss=1.0, seconds=0.1)
        assert error.value.format == format

    int8 = export / "model-int8.onnx"
    whole = int8.read_bytes()
    int8.write_bytes(whole[:100])
    refused("is no ONNX model", "onnx-int8")
    int8.unlink()
    refused("can't be read", "onnx-int8")
    matrix, bias = weights()
    write(int8, linear(matrix, bias * np.nan), None)
    refused("has no card", "onnx-int8")
    write(int8)
    reference = load_reference(export / "reference.npz")
    other = Reference(pixels=reference.pixels[:, :, :, :4], labels=reference.labels, logits=reference.logits)
    save_reference(export / "reference.npz", other)
    refused("pixels are uint8", "onnx")
    wider = np.concatenate([reference.logits, reference.logits], axis=1)
    save_reference(export / "reference.npz", Reference(pixels=reference.pixels, labels=reference.labels, logits=wider))
    refused("doesn't give 6 numbers", "onnx")
    (export / "reference.npz").unlink()
    refused("can't be read", None)


@pytest.mark.parametrize(("said", "seconds"), [("0.5", 0.5), (None, 20.0)])
def test_how_long_latency_is_measured(
    tmp_path: Path, one_load: None, monkeypatch: pytest.MonkeyPatch, said: str | None, seconds: float
) -> None:
    """As the variable says; this test waits for none of it."""
    if said is None:
        monkeypatch.delenv("EDGECLOUD_LATENCY_SECONDS")
    else:
        monkeypatch.setenv("EDGECLOUD_LATENCY_SECONDS", said)
    budgets: list[Budget] = []

    def shortened(runs: Sequence[Callable[[], object]], budget: Budget) -> list[Times]:
        budgets.append(budget)
        return by_turns(runs, Budget(seconds=0.01))

    monkeypatch.setattr(measuring, "by_turns", shortened)
    (found,) = measure(folder(tmp_path), ("onnx",), max_accuracy_loss=1.0)
    assert len(budgets) == len(found.latencies)
    assert sum(budget.seconds for budget in budgets) == pytest.approx(seconds)


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan", "inf"])
def test_a_variable_that_is_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("EDGECLOUD_LATENCY_SECONDS", said)
    with pytest.raises(MeasureError, match=f"EDGECLOUD_LATENCY_SECONDS is '{said}': a number of seconds above 0"):
        measure(tmp_path, ("onnx",), max_accuracy_loss=1.0)


def test_few_images(tmp_path: Path, one_load: None) -> None:
    """Fewer than a batch has: they are run again and again."""
    export = folder(tmp_path)
    few = load_reference(export / "reference.npz")
    save_reference(
        export / "reference.npz", Reference(pixels=few.pixels[6:8], labels=few.labels[6:8], logits=few.logits[6:8])
    )
    (found,) = measure(export, ("onnx",), max_accuracy_loss=0.0, seconds=0.1)
    assert (found.accuracy, found.parity.images) == (1.0, 2)
    assert found.latencies[1].batch == 32


def open_late(path: Path, threads: int) -> EdgeModel:
    """As torch does: what it needs is imported when the first model is opened."""
    with (path.parent / "opened").open("a") as log:
        log.write(f"{os.getpid()} {'colorsys' in sys.modules}\n")
    import_module("colorsys")
    return open_onnx(path, threads)


def test_a_load_is_timed_after_all_imports(tmp_path: Path) -> None:
    """And a process that takes long to start is started once."""
    write(tmp_path / "model.onnx")
    found = footprints.footprint(tmp_path / "model.onnx", open_late)
    assert found.load_milliseconds > 0 and found.memory.peak >= found.memory.loaded > 0
    processes, late = zip(*map(str.split, (tmp_path / "opened").read_text().splitlines()), strict=True)
    assert len(set(processes)) == 1 and late == ("False", *["True"] * footprints.REPEATS)


def test_the_footprint_of_what_is_broken(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("no")
    with pytest.raises(footprints.FootprintError, match=r"process of its own: .*is no ONNX model"):
        footprints.footprint(tmp_path / "model.onnx")
    with pytest.raises(footprints.FootprintError, match=r"process of its own: .*No such file"):
        footprints.footprint(tmp_path / "other.onnx")
