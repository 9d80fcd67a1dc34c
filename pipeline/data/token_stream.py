"""The tokens of one source as one long stream over its shards, read from a memory map or by `pread`."""

import os
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.format import ShardIndex, bin_path, idx_path, map_tokens, read_index
from pipeline.errors import DataError
from pipeline.shards import ShardFile, ShardSet

OPEN_SHARDS = 256  # at a time: each holds a file descriptor, and a process often gets no more than 1,024
Reading = Literal["mmap", "pread"]
Tokens = npt.NDArray[Any]


class Document(NamedTuple):
    """Where a document is.

    Attributes:
        start: of its first token in the stream.
        sequence_lengths: tokens of each of its sequences, int32, shape (num_sequences,); a view of the mapped index.
        sequence_places: where each starts in its shard's .bin, in bytes, int64, of the same shape; likewise a view.
    """

    start: int
    sequence_lengths: npt.NDArray[np.int32]
    sequence_places: npt.NDArray[np.int64]


class TokenStream:
    """All tokens of a source, documents one after the other, shards in their order.

    Nothing is read when it is made; a shard is opened when it is first needed.
    """

    def __init__(self, shards: ShardSet, *, reading: Reading = "mmap") -> None:
        self.shards = shards
        self.dtype = np.dtype(shards.dtype)
        self._files = [shard for shard in shards.shards if shard.num_tokens]
        self.shard_starts = np.cumsum([0, *(file.num_tokens for file in self._files)], dtype=np.int64)
        self._document_starts = np.cumsum([0, *(file.num_documents for file in self._files)], dtype=np.int64)
        make = _MappedShard if reading == "mmap" else _PreadShard
        self._shard = lru_cache(maxsize=OPEN_SHARDS)(lambda index: make(self._files[index], self.dtype))
        self._index = lru_cache(maxsize=OPEN_SHARDS)(self._open_index)

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    @property
    def num_documents(self) -> int:
        return int(self._document_starts[-1])

    def read(self, start: int, count: int) -> Tokens:
        """The tokens at `start` to `start + count`, in the dtype of the shards, shape (count,)."""
        if not 0 <= start <= start + count <= len(self):
            raise IndexError(f"tokens {start} to {start + count} are not in a stream of {len(self)}")
        result = np.empty(count, self.dtype)
        self._read_into(result, start)
        return result

    def gather(self, starts: npt.NDArray[np.int64], length: int) -> Tokens:
        """The `length` tokens from each of `starts` on, shape (len(starts), length). After the last comes the first."""
        shards = np.searchsorted(self.shard_starts, starts, side="right") - 1
        offsets = starts - self.shard_starts[shards]
        fits = starts + length <= self.shard_starts[shards + 1]
        if fits.all() and len(starts) and (shards == shards[0]).all():
            return self._shard(int(shards[0])).gather(offsets, length)
        result = np.empty((len(starts), length), self.dtype)
        rows = zip(shards.tolist(), offsets.tolist(), fits.tolist(), strict=True)
        for row, (shard, offset, whole) in enumerate(rows):
            if whole:
                self._shard(shard).read_into(result[row], offset)
            else:
                self._read_into(result[row], int(starts[row]))
        return result

    def document_at(self, position: int) -> int:
        """The number of the document that holds the token at `position`."""
        shard = self._shard_of(position)
        index = self._index(shard)
        at = (position - int(self.shard_starts[shard])) * self.dtype.itemsize
        sequence = bisect_right(index.pointers, at) - 1
        return int(self._document_starts[shard]) + bisect_right(index.document_indices, sequence) - 1

    def document(self, number: int) -> Document:
        """The document of this number."""
        shard = int(np.searchsorted(self._document_starts, number, side="right")) - 1
        index = self._index(shard)
        at = number - int(self._document_starts[shard])
        first, last = int(index.document_indices[at]), int(index.document_indices[at + 1])
        place = int(index.pointers[first]) if first < len(index.pointers) else 0
        start = int(self.shard_starts[shard]) + place // self.dtype.itemsize
        return Document(start, index.lengths[first:last], index.pointers[first:last])

    def document_starts(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """The positions in `start` to `start + count` at which a document begins; ascending.

        After the last position of the stream comes the first, so that positions may go beyond its length. A position
        comes twice where a document of no tokens lies.
        """
        found = []
        while count > 0:
            at = start % len(self)
            shard = self._shard_of(at)
            step = min(count, int(self.shard_starts[shard + 1]) - at)
            offset = at - int(self.shard_starts[shard])
            found.append(
                _starts_within(self._index(shard), offset, offset + step, self.dtype.itemsize) + start - offset
            )
            start, count = start + step, count - step
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _shard_of(self, position: int) -> int:
        return int(np.searchsorted(self.shard_starts, position, side="right")) - 1

    def _read_into(self, row: Tokens, start: int) -> None:
        """Fill `row`, from shard to shard, and from the last token to the first."""
        done = 0
        while done < len(row):
            at = (start + done) % len(self)
            shard = self._shard_of(at)
            step = min(len(row) - done, int(self.shard_starts[shard + 1]) - at)
            self._shard(shard).read_into(row[done : done + step], at - int(self.shard_starts[shard]))
            done += step

    def _open_index(self, shard: int) -> ShardIndex:
        file = self._files[shard]
        index = read_index(idx_path(file.folder, file.name))
        # Plain arrays: an element of a memmap object costs ten times as much.
        return ShardIndex(
            dtype=index.dtype,
            lengths=np.asarray(index.lengths),
            pointers=np.asarray(index.pointers),
            document_indices=np.asarray(index.document_indices),
        )


def _starts_within(index: ShardIndex, start: int, stop: int, item_bytes: int) -> npt.NDArray[np.int64]:
    """Where documents begin among the tokens `start` to `stop` of a shard. The tables are searched where they lie.

    `bisect`, not `searchsorted`: the tables of an .idx are not aligned, and NumPy would copy them whole.
    """
    first = bisect_left(index.pointers, start * item_bytes)
    last = bisect_left(index.pointers, stop * item_bytes, lo=first)
    low = bisect_left(index.document_indices, first)
    high = bisect_left(index.document_indices, last, lo=low)
    return index.pointers[index.document_indices[low:high]] // item_bytes


class _Shard(ABC):
    """The tokens of one open .bin."""

    @abstractmethod
    def __init__(self, file: ShardFile, dtype: np.dtype[Any]) -> None: ...

    @abstractmethod
    def read_into(self, row: Tokens, offset: int) -> None:
        """Fill `row` with the tokens from `offset` on."""

    @abstractmethod
    def gather(self, offsets: npt.NDArray[np.int64], length: int) -> Tokens:
        """The `length` tokens from each of `offsets` on, shape (len(offsets), length)."""


class _MappedShard(_Shard):
    def __init__(self, file: ShardFile, dtype: np.dtype[Any]) -> None:
        # A plain array: slices of a memmap object cost ten times as much.
        self._tokens = np.asarray(map_tokens(bin_path(file.folder, file.name), dtype))
        self._windows: Tokens | None = None

    def read_into(self, row: Tokens, offset: int) -> None:
        row[:] = self._tokens[offset : offset + len(row)]

    def gather(self, offsets: npt.NDArray[np.int64], length: int) -> Tokens:
        if self._windows is None or self._windows.shape[1] != length:
            self._windows = np.lib.stride_tricks.sliding_window_view(self._tokens, length)
        gathered: Tokens = self._windows[offsets]  # one copy in C: half the time of a loop
        return gathered


class _PreadShard(_Shard):
    """For file systems that map badly: over networks, where each page would be a request of its own."""

    def __init__(self, file: ShardFile, dtype: np.dtype[Any]) -> None:
        self._path, self._dtype = bin_path(file.folder, file.name), dtype
        self._descriptor = os.open(self._path, os.O_RDONLY)

    def read_into(self, row: Tokens, offset: int) -> None:
        content = row.data.cast("B")
        at = offset * self._dtype.itemsize
        while content:
            if not (found := os.preadv(self._descriptor, [content], at)):
                raise DataError(f"{self._path} ends at byte {at}: it was cut since the run began. Restore it.")
            content, at = content[found:], at + found

    def gather(self, offsets: npt.NDArray[np.int64], length: int) -> Tokens:
        result = np.empty((len(offsets), length), self._dtype)
        for row, offset in zip(result, offsets.tolist(), strict=True):
            self.read_into(row, offset)
        return result

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
