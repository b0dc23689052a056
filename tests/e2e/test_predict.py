"""`edgecloud predict` beside torch: the same answers, without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgecloud.edge.card import INPUT, METADATA_KEY, OUTPUT
from edgecloud.edge.measuring import digest
from edgecloud.edge.reference import Reference, save_reference
from tests.e2e import edge_only
from tests.unit.edge.export import folder
from tests.unit.edge.made import export_card

SHAPE = (3, 16, 16)
CLASSES = tuple(f"class {number}" for number in range(10))
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Network(nn.Module):
    """A small network with its normalisation inside, as converted ones have it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.GELU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers((pixels.float() / 255 - self.mean) / self.std)
        return 20 * found


def pictures(count: int, *, seed: int = 12, folder: Path | None = None) -> np.ndarray:
    """Smooth pictures, as photos are; uint8 [N, C, H, W], and as files in a folder."""
    random = np.random.default_rng(seed)
    found = []
    for number, small in enumerate(random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)):
        image = Image.fromarray(small).resize(SHAPE[:0:-1], Image.Resampling.BICUBIC)
        if folder is not None:
            image.save(folder / f"{number:03}.png")
        found.append(np.asarray(image).transpose(2, 0, 1))
    return np.stack(found)


@pytest.fixture(scope="module")
def network() -> Network:
    """Not trained, but with statistics in its norms, and classes that are equally likely."""
    torch.manual_seed(11)
    made = Network()
    images = torch.from_numpy(pictures(64, seed=13))
    last = made.layers[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        made.train()(images)
        features = made.eval().layers[:-1]((images.float() / 255 - made.mean) / made.std)
        last.bias.copy_(-last(features).mean(0) + last.bias)
    return made


@pytest.fixture(scope="module")
def model(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as an ONNX file with its card."""
    import onnx

    batch = torch.export.Dim("n", min=1)
    program = torch.export.export(network, (torch.zeros(2, *SHAPE, dtype=torch.uint8),), dynamic_shapes=({0: batch},))
    converted = torch.onnx.export(
        program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, external_data=False, verbose=False
    )
    assert converted is not None
    proto = converted.model_proto
    card = export_card(classes=CLASSES, shape=SHAPE, mean=MEAN, std=STD)
    onnx.helper.set_model_props(proto, {METADATA_KEY: card.model_dump_json(by_alias=True)})
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edge_only.build(tmp_path_factory.mktemp("edge") / "packages")


@pytest.mark.parametrize("absent", edge_only.ABSENT)
def test_the_edge_has_nothing_else(packages: Path, absent: str) -> None:
    done = edge_only.run(packages, "-c", f"import {absent}")
    assert f"No module named '{absent}'" in done.stderr


def test_the_answers_are_torchs_without_torch(tmp_path: Path, network: Network, model: Path, packages: Path) -> None:
    """Hundred pictures: the same classes, and probabilities that are the same to a thousandth."""
    pixels = pictures(100, folder=tmp_path)
    with torch.no_grad():
        right = network(torch.from_numpy(pixels)).softmax(1).numpy()
    assert len(set(right.argmax(1))) > 3, "not always the same class"
    command = ("-m", "edgecloud.cli.main", "predict", model, tmp_path, "-o", "json", "--top", "10")
    done = edge_only.run(packages, *command)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)["predictions"]
    assert [Path(one["image"]).name for one in said] == [f"{number:03}.png" for number in range(100)]
    for one, row in zip(said, right, strict=True):
        assert one["class"] == CLASSES[int(row.argmax())]
        found = {top["class"]: top["probability"] for top in one["top"]}
        np.testing.assert_allclose([found[name] for name in CLASSES], row, atol=1e-3)


def test_the_edge_measures(tmp_path: Path, network: Network, model: Path, packages: Path) -> None:
    """The measuring Pod's program in the same surroundings."""
    export = folder(tmp_path / "export", ("onnx",))
    (export / "model.onnx").write_bytes(model.read_bytes())
    pixels = pictures(40)
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels)).numpy()
    reference = Reference(pixels=pixels, labels=logits.argmax(1), logits=logits)
    save_reference(export / "reference.npz", reference)
    report = json.loads((export / "report.json").read_text())
    size, sha256 = digest(export / "model.onnx")
    report["exports"][0] |= {"bytes": size, "sha256": sha256}
    (export / "report.json").write_text(json.dumps(report))
    settings = {"EDGECLOUD_EXPORT": str(export), "EDGECLOUD_TERMINATION_LOG": str(tmp_path / "message")}
    done = edge_only.run(packages, "-m", "edgecloud.edge.measure", environment=settings)
    assert done.returncode == 0, done.stderr
    (said,) = json.loads((tmp_path / "message").read_text())["exports"]
    assert (said["accuracy"], said["parity"]["agreement"], said["gate"]) == (1.0, 1.0, "passed")
    assert said["parity"]["maxDifference"] < 1e-3


def test_without_the_extra(tmp_path: Path, packages: Path) -> None:
    """The base package alone says what to install."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in packages.iterdir():
        if path.name.split("-")[0] not in ("onnxruntime", "numpy", "PIL", "pillow", "numpy.libs", "pillow.libs"):
            (bare / path.name).symlink_to(path.resolve())
    done = edge_only.run(bare, "-m", "edgecloud.cli.main", "predict", "model.onnx", "a.png")
    assert done.returncode == 2
    assert "is not installed: pip install '.[edge]' in EdgeCloud's folder" in done.stderr
    done = edge_only.run(packages, "-m", "edgecloud.cli.main", "evaluate", "model.onnx")
    assert done.returncode == 2
    assert "torch is not installed: pip install '.[trainer]' in EdgeCloud's folder" in done.stderr
