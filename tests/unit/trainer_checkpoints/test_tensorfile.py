"""The reader of safetensors files against hostile headers, and against the library's own reader and writer."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from edgecloud_trainer.checkpoints import DamagedError
from edgecloud_trainer.checkpoints.tensorfile import MAX_HEADER, read, write
from tests.unit.core.profile import tries
from tests.unit.trainer_checkpoints.material import SHARED_MEMORY, same, tensors_of

TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint64,
    torch.uint32,
    torch.uint16,
    torch.uint8,
    torch.bool,
]


def read_bytes(data: bytes) -> tuple[dict[str, torch.Tensor], str]:
    return read(io.BytesIO(data), len(data))


def file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def test_every_type_there_and_back(tmp_path: Path) -> None:
    tensors = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in TYPES}
    write(tmp_path / "file", tensors, 0o640)
    data = (tmp_path / "file").read_bytes()
    found, sha256 = read_bytes(data)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))


@tries(60)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=4),
        st.tuples(st.sampled_from(TYPES[:4] + TYPES[6:]), st.lists(st.integers(0, 4), max_size=4)),
        max_size=6,
    )
)
def test_both_readers_agree_on_both_writers(shapes: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    tensors = {name: torch.randint(0, 2, shape).to(dtype) for name, (dtype, shape) in shapes.items()}
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        write(Path(folder, "file"), tensors, 0o600)
        ours = Path(folder, "file").read_bytes()
    assert same(read_bytes(ours)[0], tensors) and same(load(ours), tensors)
    assert same(read_bytes(save(tensors, metadata={"any": "thing"}))[0], tensors)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        file(b"{}", length=2**63),
        file(b"{}", length=3),
        file(b"{}", length=MAX_HEADER + 1) + b" " * (MAX_HEADER + 1),
        file(b"{"),
        file(b"\xff"),
        file(b"[" * 200_000),
        file([]),
        file(3),
        file({"a": 3}),
        file({"a": {}}),
        file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345"),
        file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}}, b"12345"),
        file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234"),
        file({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        file({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, b"1234"),
        file({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"1234"),
        file({"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}, b"1234"),
        file({"a": {"dtype": "F32", "shape": [2**61, 2**61, 0], "data_offsets": [0, 0]}}),
        file({"a": {"dtype": "F32", "shape": [10**30, 0], "data_offsets": [0, 0]}}),
        file({"a": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}}, b"1234"),
        file({"a": {"dtype": "pickle", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        file({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        file({"a": {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}}, b"1234"),
        file({n: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for n in "ab"}, b"1234"),
        file(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[' + b"9" * 5000 + b",1]}}", b"1"),
    ],
    ids=lambda data: repr(data[8:60]),
)
def test_absurd_headers(data: bytes) -> None:
    with pytest.raises(DamagedError):
        read_bytes(data)


@tries(200)
@given(st.binary(max_size=200), st.integers(0, 900), st.integers(0, 40))
def test_any_bytes_give_tensors_or_a_sentence(spice: bytes, where: int, length: int) -> None:
    good = save({name: tensor.contiguous() for name, tensor in tensors_of(1).items()})
    data = good[: where % len(good)] + spice + good[where % len(good) + length :]
    try:
        found, sha256 = read_bytes(data)
    except DamagedError:
        return
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert sum(tensor.nbytes for tensor in found.values()) < len(data)
