"""tensors.safetensors: tensors to a file and back, without pickle, and the digest of a model's weights.

The format (safetensors): 8 bytes little-endian length of the header; the header, a JSON object of name to {dtype,
shape, data_offsets}; the tensors' bytes, row-major and little-endian, without gaps.

Writing is the safetensors library's. Reading is ours, for two reasons. What was hashed must be what is used: each
tensor is read straight into its own memory and hashed on the way, in one pass and with no second copy. And the library
maps the file into memory: a file that another node cuts short would end the training with a bus error instead of a
sentence.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
from safetensors import SafetensorError, TensorSpec, serialize_file

from edgecloud_trainer.checkpoints.errors import DamagedError
from edgecloud_trainer.checkpoints.files import CHUNK

MAX_HEADER: Final = 32 << 20
"""Bytes of a header: about a quarter of a million tensors."""
MAX_DIMENSIONS: Final = 64

_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_KNOWN: Final = frozenset(_DTYPES.values())
_RESERVED = "__metadata__"
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@dataclass(frozen=True)
class _Entry:
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def checked(tensors: Mapping[str, torch.Tensor], weights: Collection[str]) -> None:
    """ValueError, naming the tensor, for what the format can't hold, and for weights that are not among the tensors."""
    for name, tensor in tensors.items():
        if not name or name == _RESERVED or "\0" in name or name != name.encode("utf-8", "ignore").decode():
            raise ValueError(f"{name!r} is no name for a tensor in a checkpoint")
        if tensor.layout != torch.strided or tensor.dtype not in _KNOWN or tensor.is_quantized or tensor.is_meta:
            raise ValueError(
                f"tensor {name!r} cannot be saved: {tensor.dtype}, {tensor.layout} on {tensor.device};"
                " checkpoints hold dense tensors of the float, bfloat, integer and bool types"
            )
    if missing := sorted(set(weights) - set(tensors)):
        raise ValueError(f"weights that are not among the tensors: {', '.join(missing[:5])}")


def weights_digest(tensors: Mapping[str, torch.Tensor], names: Collection[str]) -> str:
    """Hexadecimal sha256 of the named tensors: for each, in the order of names, one line of JSON [name, dtype, shape],
    then its bytes, row-major and little-endian.

    It depends on nothing else: not on strides, device, or the file that they were saved to.
    """
    sha256 = hashlib.sha256()
    for name in sorted(set(names)):
        tensor = tensors[name]
        head = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        sha256.update(json.dumps(head, separators=(",", ":")).encode("ascii") + b"\n")
        sha256.update(_bytes_of(row_major(tensor)))
    return sha256.hexdigest()


def row_major(tensor: torch.Tensor) -> torch.Tensor:
    """The same values in CPU memory, one after the other; the tensor itself if it is so already."""
    return tensor.detach().cpu().contiguous()


def write(path: Path, tensors: Mapping[str, torch.Tensor], mode: int) -> None:
    """Write a new file with the permissions `mode`, and make its bytes durable. OSError if the storage refuses."""
    plain = {name: row_major(tensor) for name, tensor in tensors.items()}
    specs = {
        name: TensorSpec(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tensor.shape,
            data_ptr=tensor.data_ptr(),
            data_len=tensor.nbytes,
        )
        for name, tensor in plain.items()
    }
    try:
        serialize_file(specs, path)
    except SafetensorError as error:
        if found := _OS_ERROR.search(str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None
        raise
    del plain  # not before: the specs hold bare addresses
    descriptor = os.open(path, os.O_RDWR)
    try:
        with contextlib.suppress(OSError):  # some file systems know no permissions
            os.fchmod(descriptor, mode)  # the library leaves 0600, which no process of another user could read
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(file: BinaryIO, size: int) -> tuple[dict[str, torch.Tensor], str]:
    """Tensors in CPU memory, and the hexadecimal sha256 of the whole file of `size` bytes, opened unbuffered.

    Memory is taken only for what the file's size allows. Raises DamagedError, and OSError as reading does.
    """
    sha256 = hashlib.sha256()
    head = bytearray(8)
    _fill(file, memoryview(head), sha256)
    length = int.from_bytes(head, "little")
    if length > min(MAX_HEADER, size - 8):
        raise DamagedError(f"its header claims {length} bytes")
    header = bytearray(length)
    _fill(file, memoryview(header), sha256)
    tensors: dict[str, torch.Tensor] = {}
    for entry in _entries(header, size - 8 - length):
        try:
            tensor = torch.empty(entry.shape, dtype=entry.dtype)
        except (RuntimeError, OverflowError, TypeError):
            raise DamagedError(f"no memory could be taken for tensor {entry.name!r} of shape {entry.shape}") from None
        _fill(file, _bytes_of(tensor), sha256)
        tensors[entry.name] = tensor
    return tensors, sha256.hexdigest()


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a row-major CPU tensor, writable."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _fill(file: BinaryIO, target: memoryview, sha256: Any) -> None:
    for begin in range(0, len(target), CHUNK):
        part = target[begin : begin + CHUNK]
        done = 0
        while done < len(part):
            count = file.readinto(part[done:])  # type: ignore[attr-defined]  # typeshed: BinaryIO lacks it
            if not count:
                raise DamagedError("it ends too early")
            done += count
        sha256.update(part)


def _entries(header: bytearray, room: int) -> list[_Entry]:
    """What the header says, by position: each tensor as large as its type and shape, together exactly `room` bytes."""
    try:
        parsed = json.loads(header)
        entries = [_entry(name, fields) for name, fields in parsed.items() if name != _RESERVED]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise DamagedError("its header is no safetensors header") from None
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    position = 0
    for entry in entries:
        if entry.begin != position or entry.end - entry.begin != math.prod(entry.shape) * entry.dtype.itemsize:
            raise DamagedError(f"its header gives tensor {entry.name!r} a wrong place or size")
        position = entry.end
    if position != room:
        raise DamagedError("its header and its size do not fit together")
    return entries


def _entry(name: str, fields: Any) -> _Entry:
    shape = tuple(fields["shape"])
    begin, end = fields["data_offsets"]
    if any(type(number) is not int or not 0 <= number < 2**62 for number in (*shape, begin, end)):
        raise ValueError
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError
    return _Entry(name=name, dtype=_DTYPES[fields["dtype"]], shape=shape, begin=begin, end=end)
