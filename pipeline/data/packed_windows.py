"""Samples as `pretrain data pack` put them together: whole documents, filled up."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep import packing
from data_prep.manifest import FILE_NAME as MANIFEST
from data_prep.manifest import read_manifest
from pipeline.data.token_stream import OPEN_SHARDS, TokenStream
from pipeline.errors import DataError
from pipeline.objectives.samples import Windows
from pipeline.shards import ShardSet

Ids = npt.NDArray[np.int64]


class PackedWindows:
    """The packed windows of a source, those of one shard after those of another. Each epoch has the same ones.

    Attributes:
        num_samples: windows in each epoch.

    Raises:
        DataError: a shard is not packed for this sequence length, or its packing is of other data, cut or grown.
    """

    def __init__(self, stream: TokenStream, *, seq_len: int) -> None:
        self.stream = stream
        self._seq_len, self._length = seq_len, packing.window_length(seq_len)
        self._files = stream.shards.shards
        counts = list(_window_counts(stream.shards, seq_len))
        self._first_windows = np.cumsum([0, *counts], dtype=np.int64)
        self._first_tokens = np.cumsum([0, *(file.num_tokens for file in self._files)], dtype=np.int64)
        self._windows = lru_cache(maxsize=OPEN_SHARDS)(self._open)
        self.num_samples = int(self._first_windows[-1])

    def read(self, *, epochs: Ids, ids: Ids, positions: Ids) -> Windows:  # noqa: ARG002  each epoch has the same ones
        """The windows `ids`, int64, shape (B,). A document, or a part of one, starts where `starts_document` says."""
        tokens = np.full((len(ids), self._length), self.stream.shards.eod_id or 0, self.stream.dtype)
        starts_document = np.zeros(tokens.shape, np.bool_)
        lengths = np.zeros(len(ids), np.int64)
        shards = np.searchsorted(self._first_windows, ids, side="right") - 1
        numbers = ids - self._first_windows[shards]
        for row, (shard, number) in enumerate(zip(shards.tolist(), numbers.tolist(), strict=True)):
            end = 0
            for start, length in self._pieces(shard, number):
                tokens[row, end : end + length] = self.stream.read(start, length)
                starts_document[row, end] = True
                end += length
            lengths[row] = end
        return Windows(tokens=tokens, lengths=lengths, starts_document=starts_document)

    def _pieces(self, shard: int, number: int) -> Iterator[tuple[int, int]]:
        """Where each piece of a window starts in the stream, and its length, in tokens."""
        windows = self._windows(shard)
        first, last = windows.first_pieces[number : number + 2].tolist()
        starts, lengths = windows.starts[first:last], windows.lengths[first:last]
        file = self._files[shard]
        stops = starts + lengths
        if not 0 < lengths.sum() <= self._length or starts.min() < 0 or stops.max() > file.num_tokens:
            path = packing.packed_path(file.folder, file.name, self._seq_len)
            raise DataError(f"{path} is damaged: window {number}. {packing.remedy(file.folder, self._seq_len)}")
        return zip((starts + self._first_tokens[shard]).tolist(), lengths.tolist(), strict=True)

    def _open(self, shard: int) -> packing.WindowTable:
        file = self._files[shard]
        return packing.read_windows(file.folder, file.name, self._seq_len)


def _window_counts(shards: ShardSet, seq_len: int) -> Iterator[int]:
    """The number of windows of each shard; one record is read for each folder."""
    packed: dict[Path, dict[str, packing.PackedShard]] = {}
    for file in shards.shards:
        if file.folder not in packed:
            packed[file.folder] = _of_folder(file.folder, seq_len)
        found = packed[file.folder].get(file.name)
        if found is None:
            raise DataError(f"{file.prefix} is not packed. {packing.remedy(file.folder, seq_len)}")
        yield found.num_windows


def _of_folder(folder: Path, seq_len: int) -> dict[str, packing.PackedShard]:
    if not (folder / MANIFEST).exists():
        raise DataError(
            f"data.packing=true cannot be used with {folder}: it has no {MANIFEST}, so that it cannot be packed. "
            "Set data.packing=false, or make a data set with `pretrain data tokenize`."
        )
    found = packing.read_packing(folder, seq_len, read_manifest(folder))
    for shard in found.shards:
        path = packing.packed_path(folder, shard.name, seq_len)
        size = path.stat().st_size if path.is_file() else None
        if size != shard.num_bytes:
            state = "is missing" if size is None else f"has {size} bytes"
            raise DataError(
                f"{path} {state}, {packing.record_path(folder, seq_len).name} says {shard.num_bytes} bytes. "
                f"{packing.remedy(folder, seq_len)}"
            )
    return {shard.name: shard for shard in found.shards}
