"""Tensors to `.safetensors` files as they come, so that a model is written that does not fit memory.

One file, all numbers little-endian:

    offset    bytes    type      content
    0         8        uint64    size of the header, N, a multiple of 8
    8         N        JSON      name -> {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, then spaces
    8 + N     ...      any       the tensors, row-major, nothing between them; data_offsets count from here

A worked total: one fp32 tensor `w` of shape (2, 3) has a header of 57 bytes, filled up to 64, and 24 bytes of data:
8 + 64 + 24 = 96 bytes. The key `__metadata__`, which transformers asks for, adds its own bytes to the header.

Source: https://github.com/huggingface/safetensors, "Format".
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

MAX_SHARD_BYTES = 5 * 10**9
INDEX_NAME = "model.safetensors.index.json"
DTYPE_CODES: Mapping[torch.dtype, str] = MappingProxyType(
    {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
)

Shapes = Mapping[str, tuple[int, ...]]
NamedPieces = tuple[str, Iterable[torch.Tensor]]


def save_model(
    folder: Path,
    shapes: Shapes,
    tensors: Iterator[NamedPieces],
    *,
    dtype: torch.dtype,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write `model.safetensors` to `folder`, or numbered shards and an index if there is more than `max_shard_bytes`.

    Args:
        shapes: every tensor, in the order of `tensors`.
        tensors: each name with its tensor as pieces along dim 0, of any size, which are asked for one by one.
    """
    shards = _plan(shapes, dtype, max_shard_bytes)
    names = [_shard_name(number, len(shards)) for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _save_shard(folder / name, shard, tensors, dtype)
    assert next(tensors, None) is None, "more tensors than shapes"
    if len(shards) > 1:
        _save_index(folder, dict(zip(names, shards, strict=True)), dtype)


def _plan(shapes: Shapes, dtype: torch.dtype, max_shard_bytes: int) -> list[dict[str, tuple[int, ...]]]:
    """The tensors of each shard: as many as fit, and at least one."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    room = max_shard_bytes
    for name, shape in shapes.items():
        size = num_bytes(shape, dtype)
        if size > room and shards[-1]:
            shards.append({})
            room = max_shard_bytes
        shards[-1][name] = shape
        room -= size
    return shards


def num_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes that a tensor takes in the file."""
    return math.prod(shape) * dtype.itemsize


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05d}-of-{count:05d}.safetensors" if count > 1 else "model.safetensors"


def _save_shard(path: Path, shapes: Shapes, tensors: Iterator[NamedPieces], dtype: torch.dtype) -> None:
    with path.open("wb") as file:
        file.write(_header(shapes, dtype))
        for expected, shape in shapes.items():
            name, pieces = next(tensors)
            start = file.tell()
            for piece in pieces:
                assert piece.dtype == dtype
                file.write(piece.contiguous().view(torch.uint8).numpy().data)
            assert name == expected, f"{name} came in place of {expected}"
            assert file.tell() - start == num_bytes(shape, dtype), name


def _header(shapes: Shapes, dtype: torch.dtype) -> bytes:
    content: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + num_bytes(shape, dtype)
        content[name] = {"dtype": DTYPE_CODES[dtype], "shape": shape, "data_offsets": (offset, end)}
        offset = end
    raw = json.dumps(content, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def _save_index(folder: Path, shards: Mapping[str, Shapes], dtype: torch.dtype) -> None:
    total = sum(num_bytes(shape, dtype) for shapes in shards.values() for shape in shapes.values())
    weight_map = {name: file for file, shapes in shards.items() for name in shapes}
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
