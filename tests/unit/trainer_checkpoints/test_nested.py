"""Optimizer state to tensors and JSON, and back exactly."""

from __future__ import annotations

import enum
import json
import math
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_trainer.checkpoints import flatten, load, unflatten
from tests.unit.core.profile import tries
from tests.unit.trainer_checkpoints.material import SHARED_MEMORY, store

tensors = st.builds(
    lambda shape, dtype, seed: torch.randint(-9, 9, shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(
        [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
    ),
    st.integers(0, 9),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5)
keys = st.integers(-3, 3) | st.text(st.characters(), max_size=3) | st.sampled_from(["0", "a.b", "a", "b", "~1"])
nested = st.recursive(
    scalars | tensors,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.fixed_dictionaries({"a": st.fixed_dictionaries({"b": tensors}), "a.b": tensors})
    ),
    max_leaves=12,
)


def exactly(a: Any, b: Any) -> bool:
    """Equal, with the same types, order of keys, signs of zeros and NaNs."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))
    if isinstance(a, dict):
        pairs = list(zip(a.items(), b.items(), strict=False))
        return len(a) == len(b) and all(exactly(x, y) and exactly(v, w) for (x, v), (y, w) in pairs)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(exactly(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return bool(a == b)


@tries(300)
@given(nested, st.sampled_from(["optimizer", "o.1"]))
def test_there_and_back(value: Any, prefix: str) -> None:
    flat, tree = flatten(prefix, value)
    assert all(name.startswith(prefix) for name in flat)
    others = {"model.weight": torch.ones(1)}
    assert exactly(unflatten(prefix, flat | others, json.loads(json.dumps(tree))), value)


@tries(25)
@given(nested)
def test_there_and_back_through_a_checkpoint(value: Any) -> None:
    flat, tree = flatten("x", value)
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        path = store(Path(folder)).save(1, flat, {"tree": tree}, weights=[]).path
        found, state = load(path)
    assert exactly(unflatten("x", found, state["tree"]), value)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_an_optimizer_goes_on_as_if_nothing_had_happened(tmp_path: Path, kind: str) -> None:
    def made() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(3)
        model = torch.nn.Linear(4, 3, bias=kind != "muon")
        match kind:
            case "sgd":
                return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
            case "adamw":
                return model, torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.8, 0.95), amsgrad=True)
        return model, torch.optim.Muon(model.parameters(), lr=0.01)

    def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            images = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(images).square().sum().backward()
            optimizer.step()

    model, optimizer = made()
    steps(model, optimizer, 0, 3)
    flat, tree = flatten("optimizer", optimizer.state_dict())
    to = store(tmp_path)
    to.save(3, {**model.state_dict(), **flat}, {"optimizer": tree}, weights=list(model.state_dict()))
    steps(model, optimizer, 3, 6)

    other, again = made()
    loaded = to.choose()
    assert loaded is not None
    other.load_state_dict({name: loaded.tensors[name] for name in loaded.weights})
    restored = unflatten("optimizer", loaded.tensors, loaded.state["optimizer"])
    again.load_state_dict(restored)
    steps(other, again, 3, 6)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert exactly(flatten("o", again.state_dict())[1], flatten("o", optimizer.state_dict())[1])


def test_subclasses_come_back_plain() -> None:
    class Colour(enum.IntEnum):
        RED = 3

    value = OrderedDict(size=torch.Size([1, 2]), colour=Colour.RED, number=np.float64(0.5))
    _, tree = flatten("x", value)
    assert exactly(unflatten("x", {}, tree), {"size": (1, 2), "colour": 3, "number": 0.5})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [1, object()]}, "x.a.1 is a object, which"),
        ({"a": {1.5: 0}}, "x.a has the key 1.5"),
        ({True: 0}, "x has the key True"),
        ({"a": {1, 2}}, "x.a is a set"),
        (np.float32(1), "x is a float32"),
        (b"bytes", "x is a bytes"),
    ],
)
def test_what_can_not_be_held_is_named(value: object, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        flatten("x", value)


def test_endless_nesting_and_no_prefix() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested more than 64 levels"):
        flatten("x", endless)
    with pytest.raises(ValueError, match="prefix"):
        flatten("", {})


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"tuple": 3},
        {"tuple": [], "more": 1},
        {"dict": [[1]]},
        {"dict": [[1.5, 2]]},
        {"dict": {}},
        {"tensor": 3},
        {"tensor": "x.not.there"},
        {"tensor": "y.other"},
        [[{"unknown": 1}]],
        json.loads("[" * 80 + "]" * 80),
    ],
)
def test_a_tree_that_flatten_never_made(tree: object) -> None:
    with pytest.raises(ValueError, match="state"):
        unflatten("x", {"y.other": torch.ones(1)}, tree)
