"""Which images a model is held against, and which of its classes their labels mean."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecloud.api.trainer import DataSpec
from edgecloud.edge.card import ExportCard
from edgecloud_trainer.appraisal.appraising import Appraisal, Comparison, ask, comparison_to_json, to_json
from edgecloud_trainer.appraisal.material import Choice, Material, MaterialError, cache_folder, gather, meaning, spec_of
from edgecloud_trainer.appraisal.predictors import Opened, PredictorError
from edgecloud_trainer.data import DataError, Images
from tests.unit.edge.made import export_card, network_card
from tests.unit.trainer.pictures import tree, write


def nothing(done: int, total: int) -> None:
    """No progress."""


def read(tmp_path: Path, choice: Choice, **files: int) -> Material:
    root = write(tmp_path / "set", tree({name.replace("__", "/"): count for name, count in files.items()}))
    return gather(DataSpec(source=str(root)), choice, seed=0, cache=tmp_path / "cache", on_progress=nothing)


def made(count: int = 12, classes: tuple[str, ...] = ("cat", "dog", "eel")) -> Material:
    """Images whose first pixel is their label."""
    labels = np.arange(count) % len(classes)
    pixels = np.zeros((count, 3, 4, 5), np.uint8)
    pixels[:, 0, 0, 0] = labels
    images = Images(pixels=pixels, labels=labels)
    return Material(
        name="made", choice="test", digest="0" * 64, classes=classes, shape=(3, 4, 5), parts={"test": images}
    )


class Reads:
    """A model that reads the first pixel, and is wrong on some images that it counts."""

    def __init__(self, wrong: tuple[int, ...] = (), classes: int = 3, value: float = 2.0) -> None:
        self._wrong, self._classes, self._value, self._seen = wrong, classes, value, 0

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        places = pixels[:, 0, 0, 0].astype(np.int64)
        for row in range(len(pixels)):
            if self._seen + row in self._wrong:
                places[row] = (places[row] + 1) % self._classes
        self._seen += len(pixels)
        logits = np.zeros((len(pixels), self._classes), np.float32)
        logits[np.arange(len(pixels)), places] = self._value
        return logits


def opened(predictor: Reads, card: ExportCard | None = None) -> Opened:
    card = card or export_card()
    return Opened(
        path=Path("model.onnx"), kind="onnx", card=card.network, run=card.run, predictor=predictor, mirror=False,
        computes="here",
    )  # fmt: skip


def appraised(predictor: Reads, material: Material) -> Appraisal:
    model = opened(predictor)
    return Appraisal(opened=model, material=material, answers=ask(model, material, nothing))


def test_large_images_are_asked_for_as_the_training_evaluates_them() -> None:
    """The same ones together, for the same numbers; and no more than fit into the memory."""
    sizes: list[int] = []

    class Counts(Reads):
        def logits(self, pixels: np.ndarray) -> np.ndarray:
            sizes.append(len(pixels))
            return super().logits(pixels)

    labels = np.zeros(300, np.int64)
    pixels = np.broadcast_to(np.zeros((1, 3, 1, 1), np.uint8), (300, 3, 128, 128))
    shape = (3, 128, 128)
    card = export_card(shape=shape)
    material = replace(made(), shape=shape, parts={"test": Images(pixels=pixels, labels=labels)})
    ask(opened(Counts(), card), material, nothing)
    assert sizes == [125, 125, 50]


@pytest.mark.parametrize(("choice", "count"), [("test", 3), ("train", 8), ("validation", 4), ("all", 15)])
def test_splits(tmp_path: Path, choice: Choice, count: int) -> None:
    material = read(tmp_path, choice, train__a=5, train__b=3, test__a=2, test__b=1, val__a=2, val__b=2)
    assert len(material) == count
    assert sum(len(labels) for _, labels in material.pieces(2)) == count
    assert max(len(labels) for _, labels in material.pieces(2)) <= 2
    for number, pixels in enumerate(np.concatenate([pixels for pixels, _ in material.pieces(4)])):
        name, image = material.image(number)
        np.testing.assert_array_equal(image, pixels)
        with Image.open(tmp_path / "set" / name) as file:
            np.testing.assert_array_equal(np.asarray(file).transpose(2, 0, 1), pixels)
    with pytest.raises(IndexError):
        material.image(count)


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MaterialError, match="set has no validation images, only train, test: name one of these"):
        read(tmp_path, "validation", a=10, b=10)


def test_classes_go_by_their_names() -> None:
    material = made(classes=("eel", "cat"))
    assert meaning(material, network_card()).tolist() == [2, 0]
    with pytest.raises(MaterialError, match="classes that the model doesn't know: bat, yak; it knows cat, dog, eel"):
        meaning(made(classes=("bat", "cat", "yak")), network_card())
    many = tuple(f"c{number}" for number in range(40))
    with pytest.raises(MaterialError, match="c0, c1, c2, c3, c4 and 35 more"):
        meaning(made(classes=many), network_card())


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 5, 4), "made has images of 5x4 pixels .colour., and the model takes 4x5"),
        ((1, 4, 5), r"the model takes 5x4 pixels \(grey\): convert the files"),
    ],
)
def test_other_images(shape: tuple[int, int, int], said: str) -> None:
    with pytest.raises(MaterialError, match=said):
        meaning(made(), network_card(shape=shape))


def test_classes_may_be_spelt_in_another_way() -> None:
    """In Unicode é is one letter, or, as macOS has it, two."""
    card = network_card(classes=("f", "\xe9"), shape=(3, 4, 5))
    assert meaning(made(classes=("e\u0301", "f")), card).tolist() == [1, 0]


def test_all_of_a_small_set(tmp_path: Path) -> None:
    """Nothing is held back that nobody asked for, and nothing decoded twice for it; of the training's own it is."""
    few, more = (
        DataSpec(source=str(write(tmp_path / name, tree({"cat": count, "dog": count}))))
        for name, count in (("few", 1), ("more", 9))
    )
    for choice, own, sizes in (("all", False, {"train": 18}), ("train", False, {"train": 18}),
                               ("all", True, {"train": 16, "test": 2}), ("test", False, {"test": 2})):  # fmt: skip
        found = gather(more, choice, seed=0, cache=tmp_path / "cache", on_progress=nothing, own=own)  # type: ignore[arg-type]
        assert {name: len(images) for name, images in found.parts.items()} == sizes
        assert len(list((tmp_path / "cache").glob("*.images"))) == (2 if "test" in sizes else 1)
    assert len(gather(few, "all", seed=0, cache=tmp_path / "cache", on_progress=nothing)) == 2
    with pytest.raises(DataError, match="too few images"):
        gather(few, "test", seed=0, cache=tmp_path / "cache", on_progress=nothing)


def test_labels_are_the_models_own() -> None:
    """The data's second class is the model's first: the reader of pixels is right on neither."""
    material = made(8, classes=("dog", "cat"))
    found = appraised(Reads(), material)
    assert found.accuracy == 0
    assert found.evaluation.confusion.matrix().tolist() == [[0, 4, 0], [4, 0, 0], [0, 0, 0]]
    said = to_json(found)["perClass"]
    assert said["eel"] == {"total": 0, "correct": 0, "accuracy": None, "recall": None, "precision": None, "f1": None}
    assert said["cat"]["accuracy"] == said["cat"]["recall"] == 0


def test_an_appraisal_as_plain_data() -> None:
    found = appraised(Reads(wrong=(3, 7)), made(1200))
    said = to_json(found)
    assert said["accuracy"] == 1198 / 1200
    assert said["total"] == said["data"]["images"] == 1200
    assert sum(map(sum, said["confusion"])) == 1200
    assert len(said["worst"]) == 40
    assert [one["image"] for one in said["worst"][:2]] == ["test/3", "test/7"]
    assert (said["worst"][0]["true"], said["worst"][0]["predicted"]) == ("cat", "dog")
    confidence = np.exp(2) / (np.exp(2) + 2)
    assert said["calibration"]["ece"] == pytest.approx(1198 / 1200 - confidence)


def test_two_models_as_plain_data() -> None:
    material = made(50)
    both = Comparison(
        first=appraised(Reads(wrong=(3, 7)), material), second=appraised(Reads(wrong=(7, 9, 11, 2)), material)
    )
    said = comparison_to_json(both)
    assert (said["bothRight"], said["onlyFirstRight"], said["onlySecondRight"], said["noneRight"]) == (45, 3, 1, 1)
    assert said["accuracyDifference"] == pytest.approx(0.04)
    assert [one["image"] for one in said["differing"]] == ["test/2", "test/3", "test/9", "test/11"], "by turns"
    for one in said["differing"]:
        right = [one[which]["predicted"] == one["true"] for which in ("first", "second")]
        assert sorted(right) == [False, True]


def test_what_a_model_may_not_say() -> None:
    for predictor in (Reads(value=np.nan), Reads(value=np.inf), Reads(classes=4)):
        with pytest.raises(PredictorError, match="doesn't give 3 numbers for an image"):
            ask(opened(predictor), made(), nothing)


def test_larger_than_memory(tmp_path: Path) -> None:
    """600 MB of images in a file: never more than a piece of them is held."""
    count, shape = 12_500, (3, 128, 128)
    with (tmp_path / "images").open("wb") as file:
        file.truncate(count * int(np.prod(shape)))
    pixels = np.memmap(tmp_path / "images", np.uint8, "r", shape=(count, *shape))
    images = Images(pixels=pixels, labels=np.zeros(count, np.int64))
    material = Material(
        name="large", choice="test", digest="0" * 64, classes=("cat", "dog", "eel"), shape=shape, parts={"test": images}
    )
    model = opened(Reads(), export_card(shape=shape))
    seen: list[int] = []
    tracemalloc.start()
    try:
        answers = ask(model, material, lambda done, total: seen.append(done))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(answers) == count
    assert peak < 20 * 2**20
    assert seen[0] == 0
    assert seen == sorted(seen)


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert spec_of("cifar10") == DataSpec(name="cifar10")
    (tmp_path / "cifar10").mkdir()
    assert spec_of("cifar10") == DataSpec(source="cifar10")
    assert spec_of("./cifar10") == DataSpec(source="./cifar10")
    assert spec_of("https://host/set.tar") == DataSpec(source="https://host/set.tar")
    with pytest.raises(MaterialError, match="no path"):
        spec_of("x/" * 600)


def test_where_decoded_images_are_kept(tmp_path: Path) -> None:
    home = Path.home() / ".cache/edgecloud/data"
    assert cache_folder(None, {}) == home
    assert cache_folder(tmp_path, {}) == home
    assert cache_folder(None, {"XDG_CACHE_HOME": "/somewhere"}) == Path("/somewhere/edgecloud/data")
    assert cache_folder(None, {"XDG_CACHE_HOME": "relative"}) == home
    (tmp_path / "data").mkdir()
    assert cache_folder(tmp_path, {"XDG_CACHE_HOME": "/somewhere"}) == tmp_path / "data"
