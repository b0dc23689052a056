"""Opening converted models: right ones, broken ones, and ones whose card tells of something else than their graph."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgecloud.edge.runtime import ModelFileError, images_in_a_run, open_model, softmax
from tests.unit.edge.made import CLASSES, expected, export_card, images, linear, weights, with_card, write


@pytest.mark.parametrize("count", [1, 2, 33])
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_logits(tmp_path: Path, count: int, threads: int) -> None:
    model = open_model(write(tmp_path / "model.onnx"), threads=threads)
    pixels = images(count)
    found = model.logits(pixels)
    assert (found.dtype, found.shape) == (np.float32, (count, len(CLASSES)))
    np.testing.assert_allclose(found, expected(pixels, *weights()), rtol=1e-4, atol=1e-4)
    assert model.card == export_card()
    assert model.threads >= 1
    np.testing.assert_array_equal(model.logits(pixels[..., ::-1][..., ::-1]), found)


@pytest.mark.parametrize("wrong", [images(1).astype(np.float32), images(1)[0], images(1)[:, :, :3], images(1)[:0]])
def test_other_pixels(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[N, 3, 4, 5\] is needed"):
        open_model(write(tmp_path / "model.onnx")).logits(wrong)


def changed(**network: Any) -> Any:
    card = export_card().dump()
    card["network"] |= network
    return card


LIES = {
    "no card": (None, "has no card"),
    "no JSON": ("{", "card that can't be used"),
    "deep": ("[" * 100_000, "card that can't be used"),
    "not a card": ({"version": 1}, "card that can't be used"),
    "more in it": ({**export_card().dump(), "script": "rm"}, "card that can't be used"),
    "other version": ({**export_card().dump(), "version": 2}, "version"),
    "another format": (export_card("pt2"), "card says pt2"),
    "more classes": (changed(classes=["a", "b", "c", "d"]), r"card says float \[N, 4\]"),
    "other size": (changed(shape=[3, 5, 4]), r"card says uint8 \[N, 3, 5, 4\]"),
    "no images": (changed(shape=[0, 0, 0]), "card that can't be used"),
    "one class": (changed(classes=["a"]), "card that can't be used"),
    "huge": ("x" * (33 * 1024**2), "card of 34603008 characters"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_card_that_lies(tmp_path: Path, name: str) -> None:
    card, said = LIES[name]
    path = write(tmp_path / "model.onnx", linear(*weights()), card)  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match=said) as error:
        open_model(path)
    assert "export it with edgecloud export" in str(error.value)
    assert len(str(error.value)) < 1000


GRAPHS = {
    "float pixels": {"input_type": TensorProto.FLOAT},
    "fixed batch": {"input_shape": (1, 3, 4, 5)},
    "another input": {"input_name": "data"},
    "another output": {"output_name": "scores"},
    "two outputs": {"outputs": 2},
    "free size": {"input_shape": ("n", 3, "h", "w")},
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_is_none_of_ours(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "model.onnx", linear(*weights(), **GRAPHS[name]), export_card())  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="export it with edgecloud export"):
        open_model(path)


def test_no_numbers(tmp_path: Path) -> None:
    matrix, bias = weights()
    model = open_model(write(tmp_path / "model.onnx", linear(matrix, bias * np.inf), export_card()))
    with pytest.raises(ModelFileError, match="no numbers"):
        model.logits(images(2))


def test_what_isnt_an_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "cut.onnx").write_bytes(write(tmp_path / "whole.onnx").read_bytes()[:200])
    os.mkfifo(tmp_path / "pipe.onnx")
    with zipfile.ZipFile(tmp_path / "zipped.onnx", "w") as archive:
        archive.writestr("a", "b")
    for name, said in {
        "empty.onnx": "has 0 bytes",
        "text.onnx": "is no ONNX model that onnxruntime",
        "cut.onnx": "is no ONNX model that onnxruntime",
        "pipe.onnx": "no regular file",
        "zipped.onnx": "is no ONNX model but an archive",
        "missing.onnx": "can't be read",
        ".": "is a folder: name the file in it",
    }.items():
        with pytest.raises(ModelFileError, match=said) as error:
            open_model(tmp_path / name)
        assert str(tmp_path) in str(error.value)
    (tmp_path / "model.pt2").write_text("anything")
    with pytest.raises(ModelFileError, match=r"needs torch.*extra trainer"):
        open_model(tmp_path / "model.pt2")
    with (tmp_path / "sparse.onnx").open("wb") as file:
        file.truncate(2 * 1024**3 + 1)
    with pytest.raises(ModelFileError, match="2147483649 bytes"):
        open_model(tmp_path / "sparse.onnx")


@pytest.mark.parametrize("way", ["../secret", "{root}/secret", "link"])
def test_tensors_outside_of_the_folder(tmp_path: Path, way: str) -> None:
    """A model may not make onnxruntime read other files."""
    matrix, bias = weights()
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_bytes(bias.tobytes())
    (tmp_path / "folder/link").symlink_to(tmp_path / "secret")
    model = linear(matrix, bias)
    tensor = next(one for one in model.graph.initializer if one.name == "bias")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", way.format(root=tmp_path)
    path = write(tmp_path / "folder/model.onnx", model, export_card())
    with pytest.raises(ModelFileError, match=r"(?i)external data"):
        open_model(path)


def test_operations_that_nobody_knows(tmp_path: Path) -> None:
    model = linear(*weights())
    model.graph.node.append(helper.make_node("Steal", ["flat"], ["nothing"], domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(ModelFileError, match="Steal"):
        open_model(write(tmp_path / "model.onnx", with_card(model, export_card()), export_card()))


ESCAPES = "\x1b[2J\x1b]0;title\x07"


def hostile(what: str) -> onnx.ModelProto:
    """A model with such a name, which onnxruntime has something to say of."""
    model = linear(*weights())
    if what == "fails while it runs":
        place = next(at for at, node in enumerate(model.graph.node) if node.op_type == "Flatten")
        model.graph.node[place].CopyFrom(helper.make_node("Reshape", ["scaled", "odd"], ["there"], name=ESCAPES))
        model.graph.node.insert(place + 1, helper.make_node("Reshape", ["there", "even"], ["flat"]))
        for name, side in (("odd", 11), ("even", 60)):
            model.graph.initializer.append(numpy_helper.from_array(np.array([-1, side]), name))
    elif what == "an input that is not used":
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), ESCAPES))
    elif what == "an unknown set of operations":
        model.opset_import.append(helper.make_opsetid(ESCAPES, 1))
    else:
        node = next(node for node in model.graph.node if node.op_type == "Gemm")
        node.domain = ESCAPES
    return model


@pytest.mark.parametrize(
    "what",
    ["fails while it runs", "an input that is not used", "an unknown set of operations", "an unknown operation"],
)
def test_names_in_a_file_do_not_reach_the_terminal(
    tmp_path: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "model.onnx", hostile(what), export_card())
    if what in ("fails while it runs", "an unknown operation"):
        with pytest.raises(ModelFileError, match="fails while it runs" if what.startswith("fails") else "onnxruntime"):
            open_model(path).logits(images(1))
    else:
        open_model(path)
    assert capfd.readouterr() == ("", "")


@given(st.lists(st.lists(st.floats(-(2**100), 2**100, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_softmax(rows: list[list[float]]) -> None:
    logits = np.array(rows, np.float32)
    found = softmax(logits)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    assert (found.max(axis=1) == np.take_along_axis(found, logits.argmax(1)[:, None], 1)[:, 0]).all()


@pytest.mark.parametrize(("shape", "count"), [((1, 8, 8), 256), ((3, 224, 224), 27), ((3, 60000, 60000), 1)])
def test_large_images_run_in_small_batches(shape: tuple[int, int, int], count: int) -> None:
    assert images_in_a_run(shape) == count


@pytest.mark.parametrize("module", ["edgecloud.edge.runtime", "edgecloud_trainer.export.int8"])
def test_nobody_is_told(tmp_path: Path, module: str) -> None:
    """onnxruntime's wheel reports home unless it is told otherwise, and begins with files in these folders."""
    environment = {key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment |= {name: str(tmp_path) for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME")}
    subprocess.run([sys.executable, "-c", f"import {module}"], env=environment, check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []
