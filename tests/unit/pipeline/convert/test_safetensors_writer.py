"""Streaming safetensors files, read back by the safetensors library."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pipeline.convert.safetensors_writer import INDEX_NAME, NamedPieces, save_model

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def tensors(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    shapes = {"a": (7, 5), "odd": (3,), "z.weight": (2, 11), "b": (9, 4)}
    return {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}


def in_pieces(given: dict[str, torch.Tensor]) -> Iterator[NamedPieces]:
    return ((name, [tensor[start : start + 2] for start in range(0, len(tensor), 2)]) for name, tensor in given.items())


def shapes_of(given: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in given.items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_library_reads_what_was_written(tmp_path: Path, dtype: torch.dtype) -> None:
    given = tensors(dtype)
    save_model(tmp_path, shapes_of(given), in_pieces(given), dtype=dtype)
    [path] = tmp_path.iterdir()
    found = load_file(path)
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], given[name]) and found[name].dtype == dtype for name in given)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("max_shard_bytes", [1, 150, 240])
def test_shards_hold_each_tensor_once_and_keep_the_limit(tmp_path: Path, max_shard_bytes: int) -> None:
    given = tensors(torch.float32)
    save_model(tmp_path, shapes_of(given), in_pieces(given), dtype=torch.float32, max_shard_bytes=max_shard_bytes)
    index = json.loads((tmp_path / INDEX_NAME).read_text())
    shards = {path.name: load_file(path) for path in tmp_path.glob("*.safetensors")}
    assert len(shards) > 1
    assert {name: file for file, content in shards.items() for name in content} == index["weight_map"]
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in given.values())
    for content in shards.values():
        assert len(content) == 1 or sum(tensor.nbytes for tensor in content.values()) <= max_shard_bytes
        assert all(torch.equal(tensor, given[name]) for name, tensor in content.items())


def test_pieces_are_asked_for_one_by_one(tmp_path: Path) -> None:
    alive = 0

    def watched(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        nonlocal alive
        for piece in tensor[:, None]:
            alive += 1
            assert alive == 1
            yield piece
            alive -= 1

    given = tensors(torch.float32)
    pieces = ((name, watched(tensor)) for name, tensor in given.items())
    save_model(tmp_path, shapes_of(given), pieces, dtype=torch.float32)
    assert load_file(tmp_path / "model.safetensors").keys() == given.keys()


def test_a_tensor_of_another_size_is_no_file(tmp_path: Path) -> None:
    given = tensors(torch.float32)
    with pytest.raises(AssertionError, match="odd"):
        save_model(tmp_path, shapes_of(given) | {"odd": (4,)}, in_pieces(given), dtype=torch.float32)
