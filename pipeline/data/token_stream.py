"""The tokens of a data set as one long stream over memory-mapped shards."""

from pathlib import Path

import numpy as np

from data_prep import format as shard_format
from data_prep.manifest import load_manifest


class TokenStream:
    """All tokens of a data set, documents one after the other, shards in the order of the manifest.

    Raises:
        DataError: the folder holds no complete data set.
    """

    def __init__(self, folder: Path) -> None:
        self.manifest = load_manifest(folder)
        shards = [shard_format.open_shard(folder, shard.name)[0] for shard in self.manifest.shards]
        self._shards = [tokens for tokens in shards if len(tokens)]
        self._starts = np.concatenate([[0], np.cumsum([len(tokens) for tokens in self._shards], dtype=np.int64)])

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
            piece = self._shards[index][offset : offset + count]
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
