"""The tokens of a data set as one long stream over memory-mapped shards."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep.format import bin_path, idx_path, map_tokens, read_header
from data_prep.manifest import Shard, load_manifest
from pipeline.errors import DataError

MAPPED_SHARDS = 256  # at a time: each holds a file descriptor, and a process often gets no more than 1,024


class TokenStream:
    """All tokens of a data set, documents one after the other, shards in the order of the manifest.

    Opening reads the manifest and the header of each index, so that thousands of shards take less than a second; a
    shard is mapped when it is read.

    Raises:
        DataError: the folder holds no complete data set, or a shard is not the one that its manifest describes.
    """

    def __init__(self, folder: Path) -> None:
        self.manifest = load_manifest(folder)
        self._folder = folder
        for shard in self.manifest.shards:
            self._check(shard)
        self._shards = [shard for shard in self.manifest.shards if shard.num_tokens]
        self._starts = np.cumsum([0, *(shard.num_tokens for shard in self._shards)], dtype=np.int64)
        self._tokens = lru_cache(maxsize=MAPPED_SHARDS)(self._map)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, count: int) -> np.ndarray:
        """The tokens at `start` to `start + count`, in the dtype of the shards, shape (count,)."""
        if not 0 <= start <= start + count <= len(self):
            raise IndexError(f"tokens {start} to {start + count} are not in a stream of {len(self)}")
        pieces = []
        index = int(np.searchsorted(self._starts, start, side="right")) - 1
        while count > 0:
            offset = start - int(self._starts[index])
            piece = self._tokens(index)[offset : offset + count]
            pieces.append(piece)
            start, count, index = start + len(piece), count - len(piece), index + 1
        if not pieces:
            return np.empty(0, self.manifest.dtype)
        return np.concatenate(pieces) if len(pieces) > 1 else np.asarray(pieces[0])

    def num_windows(self, length: int) -> int:
        """Windows of `length` tokens, each of which starts with the last token of the one before."""
        return max(len(self) - 1, 0) // (length - 1)

    def window(self, index: int, length: int) -> np.ndarray:
        """Window `index`, shape (length,): its last token is the first of the next, so each token is predicted once."""
        return self.read(index * (length - 1), length)

    def _map(self, index: int) -> np.ndarray:
        return map_tokens(bin_path(self._folder, self._shards[index].name), np.dtype(self.manifest.dtype))

    def _check(self, shard: Shard) -> None:
        header = read_header(idx_path(self._folder, shard.name))
        num_tokens = header.bin_bytes // header.dtype.itemsize
        found = header.dtype.name, header.num_sequences, num_tokens, header.bin_bytes
        expected = self.manifest.dtype, shard.num_documents, shard.num_tokens, shard.bin_bytes
        if found != expected:
            raise DataError(
                f"{self._folder}/{shard.name}.idx describes {num_tokens} {header.dtype.name} tokens in "
                f"{header.num_sequences} documents, its manifest {shard.num_tokens} {self.manifest.dtype} tokens in "
                f"{shard.num_documents}: they do not belong together. Run `pretrain data verify {self._folder}`."
            )
