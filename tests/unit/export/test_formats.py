"""Each family in each format: the same logits, the card inside, any number of images."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgecloud.edge.card import PT2_FILE
from edgecloud.edge.layout import MODELS
from edgecloud.edge.runtime import ModelFileError, open_model
from edgecloud_trainer.export.errors import ConversionError
from edgecloud_trainer.export.folding import fold
from edgecloud_trainer.export.int8 import front, to_int8
from edgecloud_trainer.export.network import EdgeNetwork, captured
from edgecloud_trainer.export.onnx_file import save_onnx, to_onnx
from edgecloud_trainer.export.pt2 import open_pt2, save_pt2
from tests.unit.edge import made as linear
from tests.unit.export.made import SHAPE, card, export_card, network, pixels
from tests.unit.once import once
from tests.unit.trainer_checkpoints.conftest import MakeDisk

CALIBRATION = pixels(64, seed=5)
PLAIN, SMALL, ARCHIVE = (MODELS[format] for format in ("onnx", "onnx-int8", "pt2"))


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def in_all_formats(name: str, folder: Path) -> None:
    """The three files of a family's network, as an export makes them."""
    about = card(name)
    program = captured(EdgeNetwork(network(name), about, mirror=False), SHAPE)
    graph_module = program.module()
    if fold(graph_module):
        program = captured(graph_module, SHAPE)
    save_onnx(to_onnx(program), folder / PLAIN, export_card("onnx", about))
    save_onnx(to_int8(folder / PLAIN, CALIBRATION, folder), folder / SMALL, export_card("onnx-int8", about))
    save_pt2(program, folder / ARCHIVE, export_card("pt2", about))


@pytest.fixture(scope="module")
def article(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the article's network in all formats: for tests that look at a file and not at a family."""

    def make(folder: Path) -> None:
        folder.mkdir()
        in_all_formats("article-cnn", folder)

    return once(tmp_path_factory, "article-cnn-in-all-formats", make)


@pytest.mark.parametrize("name", ["article-cnn", "edgenet", "resnet18", "mobilenet_v3_small"])
def test_a_family_in_all_formats(name: str, article: Path, tmp_path: Path) -> None:
    about, images = card(name), pixels(7)
    with torch.inference_mode():
        expected = EdgeNetwork(network(name), about, mirror=False)(torch.from_numpy(images)).numpy()
    folder = article if name == "article-cnn" else tmp_path
    if folder is tmp_path:
        in_all_formats(name, folder)

    plain, small, archive = (folder / one for one in (PLAIN, SMALL, ARCHIVE))
    assert not [node for node in onnx.load(plain).graph.node if node.op_type == "BatchNormalization"]
    for path in (plain, small, archive):
        assert b"/edgecloud_trainer/" not in path.read_bytes(), "source code of the machine that it was made on"
    assert plain.stat().st_size / small.stat().st_size > 3.5
    models = {
        "onnx": open_model(plain, threads=1),
        "onnx-int8": open_model(small, threads=1),
        "pt2": open_pt2(archive, 1),
    }
    for format, model in models.items():
        assert model.card == export_card(format, about)  # type: ignore[arg-type]
        found = model.logits(images)
        assert distance(found, expected) < (0.1 if format == "onnx-int8" else 1e-5), format
        np.testing.assert_allclose(model.logits(images[:1]), found[:1], rtol=1e-3, atol=1e-4)


def test_int8_is_quantised_where_it_should_be(article: Path) -> None:
    """Layers in int8, normalisation and first layer not; weights of 7 bits, a scale for each channel."""
    model = onnx.load(article / SMALL)
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    fed = [made_by.get(node.input[0]) for node in layers]
    assert fed[0] != "DequantizeLinear" and set(fed[1:]) == {"DequantizeLinear"}
    assert {made_by[name.name] for name in model.graph.output} != {"DequantizeLinear"}
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    weights = [array for array in arrays.values() if array.dtype == np.int8 and array.ndim >= 2]
    assert len(weights) == len(layers) - 1 and max(int(np.abs(array).max()) for array in weights) <= 64
    scales = [
        arrays[node.input[1]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in arrays
    ]
    assert any(scale.size > 1 for scale in scales)


def test_the_front_ends_with_the_first_layer_that_has_weights() -> None:
    model = to_onnx(captured(EdgeNetwork(network("edgenet"), card(), mirror=True), SHAPE))
    names = front(model)
    kinds = [next(node.op_type for node in model.graph.node if node.name == name) for name in names]
    assert kinds[0] == "Cast" and kinds[-1] == "Conv" and kinds.count("Conv") == 1


def test_the_same_network_and_images_give_the_same_int8_weights(article: Path, tmp_path: Path) -> None:
    again = to_int8(article / PLAIN, CALIBRATION, tmp_path)
    assert again.graph.SerializeToString() == onnx.load(article / SMALL).graph.SerializeToString()


def test_what_can_not_be_quantised_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ConversionError, match=r"onnxruntime can't quantise this network .*: leave onnx-int8 out"):
        to_int8(tmp_path / "broken.onnx", CALIBRATION, tmp_path)


def test_a_network_with_nothing_to_quantise(tmp_path: Path) -> None:
    """One layer, which is the first; a file that says int8 and is none would only be slower."""
    linear.write(tmp_path / PLAIN)
    with pytest.raises(ConversionError, match=r"^nothing in this network can be computed in int8: leave onnx-int8 out"):
        to_int8(tmp_path / PLAIN, linear.images(20), tmp_path)


def test_a_disk_that_is_full(article: Path, make_disk: MakeDisk) -> None:
    """Which is no fault of the network; what is written on the way goes there, and nowhere else."""
    size, outcomes = (article / PLAIN).stat().st_size, set[str]()
    for copies in (0.5, 1.5, 2.5, 5.5):
        disk = make_disk(str(int(copies * size)))
        try:
            to_int8(article / PLAIN, CALIBRATION, disk)
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            outcomes.add("full")
        else:
            outcomes.add("made")
            assert copies == 5.5
    assert outcomes == {"full", "made"}


@pytest.mark.parametrize("damage", ["cut", "no card", "nothing"])
def test_a_pt2_file_that_can_not_be_used(damage: str, article: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    if damage == "no card":
        torch.export.save(torch.export.load(article / ARCHIVE), path, extra_files={PT2_FILE: "{}"})
    elif damage == "cut":
        path.write_bytes((article / ARCHIVE).read_bytes()[:2000])
    with pytest.raises(ModelFileError, match=r"model\.pt2 can't be opened .*: export it with edgecloud export"):
        open_pt2(path, 1)
