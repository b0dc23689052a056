"""A whole export into a folder: files, report, problems of single formats, and nothing left of what was broken off."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from torch import Tensor, nn

from edgecloud.api.trainer import DataSpec
from edgecloud.edge import footprint
from edgecloud.edge.card import Format
from edgecloud.edge.layout import EDGE_REPORT, MODELS, PAGE, REFERENCE, REPORT, SCHEMA
from edgecloud.edge.reference import load_reference
from edgecloud.edge.report import Report, summary
from edgecloud_trainer import settings
from edgecloud_trainer.cards import model_card, published
from edgecloud_trainer.export.errors import ExportError
from edgecloud_trainer.export.folder import LOCK, PARTIAL
from edgecloud_trainer.export.gates import COMMAND, complaints
from edgecloud_trainer.export.making import Options, export
from edgecloud_trainer.export.standing import answers, read_report, whole
from tests.unit.export.made import RUN, card, dataset, network, restored
from tests.unit.once import once


def options(*formats: Format, **more: float) -> Options:
    return Options(formats=formats, max_accuracy_loss=more.get("loss", 100.0), calibration_images=16, seconds=0.05)


def silent(what: str, part: float) -> None:
    assert 0 <= part <= 1, what


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


OTHERS = {REFERENCE, REPORT, SCHEMA, PAGE}


WANTED = options("onnx", "onnx-int8", loss=1.0)
SECRET = "sesame@host/d.images?X-Amz-Signature=0123"


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export's folder, and beside it what making it gave back."""

    def make(place: Path) -> None:
        place.mkdir()
        made = restored(network("article-cnn"), card("article-cnn", data=DataSpec(source=f"http://me:{SECRET}")))
        report = export(made, dataset(), place / "export", WANTED, knobs=COMMAND, on_progress=silent)
        (place / "report.pickle").write_bytes(pickle.dumps(report))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(footprint, "REPEATS", 1)
        return once(tmp_path_factory, "an-export", make)


@pytest.fixture
def finished(made_once: Path, tmp_path: Path) -> tuple[Path, Report]:
    """A folder of its own for each test, with an export in it."""
    report: Report = pickle.loads((made_once / "report.pickle").read_bytes())
    return shutil.copytree(made_once / "export", tmp_path / "export"), report


def test_the_folder_and_what_its_report_says(finished: tuple[Path, Report]) -> None:
    folder, report = finished
    images = dataset()
    assert names(folder) == {MODELS["onnx"], MODELS["onnx-int8"], *OTHERS}
    assert read_report(folder) == report and whole(folder, report)
    assert [one.format for one in report.exports] == ["onnx", "onnx-int8"]
    for one in report.exports:
        data = (folder / one.path).read_bytes()
        assert (one.bytes, one.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert one.macs and one.memory and one.load_milliseconds > 0 and one.parity.images == 40
        assert {(found.batch, found.threads) for found in one.latencies} >= {(1, 1), (32, 1)}
    assert report.exports[1].ratios and not report.exports[0].ratios
    assert (report.network, report.run) == (card("article-cnn", data=DataSpec(source="http://host/d.images")), RUN)
    for path in folder.iterdir():
        assert not re.search(rb"sesame|X-Amz", path.read_bytes()), f"{path.name} goes anywhere"
    assert (report.images, report.calibration_images) == (40, 16)
    schema, written = (json.loads((folder / name).read_text()) for name in (SCHEMA, REPORT))
    Draft202012Validator(schema).validate(written)
    reference = load_reference(folder / REFERENCE)
    np.testing.assert_array_equal(reference.pixels, images.test.pixels)
    np.testing.assert_array_equal(reference.labels, images.test.labels)
    assert len(json.dumps({"exports": [summary(one) for one in report.exports]})) < 2400


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (DataSpec(name="digits"), DataSpec(name="digits")),
        (DataSpec(source="/a:b@c/what?"), DataSpec(source="/a:b@c/what?")),
        (
            DataSpec(source="http://me:word@host/d?sig=1", validation_fraction=0.1),
            DataSpec(source="http://host/d", validation_fraction=0.1),
        ),
        (DataSpec(source="http://[::me:word@host?sig=1"), DataSpec(source="http://")),
    ],
)
def test_what_a_card_says_of_its_images_elsewhere(data: DataSpec, shown: DataSpec) -> None:
    assert published(card(data=data)) == card(data=shown)


@pytest.mark.parametrize(
    ("source", "card_has"),
    [
        ("photos/", "{here}/photos"),
        ("file://../pets.tar", "{above}/pets.tar"),
        ("~/photos", f"{Path.home()}/photos"),
        ("/a:b@c/what?", "/a:b@c/what?"),
        ("http://me:word@host/d?sig=1", "http://me:word@host/d?sig=1"),
        ("x" * 1024, "x" * 1024),
    ],
)
def test_a_card_names_its_images_from_anywhere_and_the_training_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, card_has: str
) -> None:
    """Whoever evaluates the model stands in another folder, perhaps with other images in one of that name."""
    monkeypatch.chdir(tmp_path)
    read = settings.read({settings.SPEC_VARIABLE: json.dumps({"trainer": {"data": {"source": source}}})})
    made = model_card(read, dataset(), nn.Identity(), {})
    assert made.data == DataSpec(source=card_has.format(here=tmp_path, above=tmp_path.parent))
    assert read.trainer.data.source == source, "which the digest is of"


def test_an_export_replaces_what_an_earlier_one_has_left_and_nothing_else(
    finished: tuple[Path, Report], one_load: None
) -> None:
    folder, _ = finished
    (folder / f"{PARTIAL}left").mkdir()
    (folder / f"{PARTIAL}left" / LOCK).touch()
    (folder / "mine.txt").write_text("of the user's")
    (folder / MODELS["pt2"]).write_text("of the user's as well")
    (folder / EDGE_REPORT).write_text("of the models that were here")
    made = restored(network("article-cnn", seed=1), card("article-cnn"))
    report = export(made, dataset(), folder, options("onnx"), knobs=COMMAND, on_progress=silent)
    assert names(folder) == {"model.onnx", "model.pt2", "mine.txt", *OTHERS}
    assert whole(folder, report) and read_report(folder) == report


def asked(report: Report, **other: object) -> bool:
    said = {
        "run": RUN, "formats": ("onnx", "onnx-int8"), "max_accuracy_loss": 1.0, "calibration_images": 16,
        "mirror": False,
    }  # fmt: skip
    return answers(report, **(said | other))  # type: ignore[arg-type]


def test_whether_a_report_answers_what_is_asked(finished: tuple[Path, Report]) -> None:
    folder, report = finished
    assert asked(report)
    assert asked(report, formats=("onnx-int8", "onnx"))
    assert not asked(report, run=RUN.model_copy(update={"weights_sha256": "b" * 64}))
    assert not asked(report, formats=("onnx",))
    assert not asked(report, formats=("onnx", "onnx-int8", "pt2"))
    assert not asked(report, max_accuracy_loss=2.0)
    assert not asked(report, calibration_images=17)
    assert not asked(report, mirror=True)
    assert whole(folder, report)
    for name in (REFERENCE, PAGE, SCHEMA):
        (folder / name).rename(folder / "away")
        assert not whole(folder, report), f"{name} is to be delivered as well"
        (folder / "away").rename(folder / name)
    (folder / "model.onnx").write_bytes(b"cut")
    assert not whole(folder, report)
    (folder / "model.onnx").unlink()
    assert not whole(folder, report)


@pytest.mark.parametrize("text", ["", "{}", "[" * 5000, '{"version": 1}', "\ud800"])
def test_a_report_that_is_none(text: str, tmp_path: Path) -> None:
    assert read_report(tmp_path) is None
    (tmp_path / REPORT).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert read_report(tmp_path) is None


class Moody(nn.Module):
    """What torch.export can't follow."""

    def forward(self, x: Tensor) -> Tensor:
        found = x.mean((2, 3)).repeat(1, 2)[:, :5]
        return found if float(found.sum()) > 0 else -found


class Lost(nn.Module):
    """A training that went wrong."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).repeat(1, 2)[:, :5] * float("nan")


def test_a_network_that_can_not_be_exported_at_all(tmp_path: Path) -> None:
    wanted = options("onnx", "pt2")
    report = export(restored(Moody(), card("own:net")), dataset(), tmp_path, wanted, knobs=COMMAND, on_progress=silent)
    assert names(tmp_path) == OTHERS
    assert not report.exports and [one.format for one in report.problems] == ["onnx", "pt2"]
    assert all("torch.export can't follow this network" in sentence for sentence in complaints(report, COMMAND))


def test_a_time_that_is_none_is_refused_before_the_network_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECLOUD_LATENCY_SECONDS", "1s")
    with pytest.raises(ExportError, match=r"EDGECLOUD_LATENCY_SECONDS is '1s': a number of seconds above 0"):
        export(restored(Lost(), card()), dataset(), tmp_path, options("onnx"), knobs=COMMAND, on_progress=silent)


def test_a_network_without_numbers(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="doesn't give 5 numbers for each image: look at the training"):
        export(restored(Lost(), card()), dataset(), tmp_path, options("onnx"), knobs=COMMAND, on_progress=silent)
    assert names(tmp_path) == set()


def test_an_export_that_is_broken_off_leaves_what_was_there(finished: tuple[Path, Report], one_load: None) -> None:
    folder, report = finished

    def stop(what: str, _part: float) -> None:
        if what.startswith("latency"):
            raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        made = restored(network("article-cnn"), card("article-cnn"))
        export(made, dataset(), folder, options("onnx", "pt2"), knobs=COMMAND, on_progress=stop)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert read_report(folder) == report
