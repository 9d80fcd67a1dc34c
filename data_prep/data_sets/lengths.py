"""How long documents are: exact counts of any number of lengths in bounded memory."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHORT = 2**20  # lengths below are counted one by one, 8 MB; of longer ones there are at most num_tokens / 2^20


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Documents with `lowest` to `highest` tokens."""

    lowest: int
    highest: int
    num_documents: int


class LengthCounts:
    """Counts lengths, batch by batch. All figures are exact."""

    def __init__(self) -> None:
        self._short = np.zeros(SHORT, np.int64)
        self._long: list[npt.NDArray[np.integer]] = []

    def add(self, lengths: npt.NDArray[np.integer]) -> None:
        """Count these, shape (num_documents,), each 0 or more."""
        is_short = lengths < SHORT
        self._short += np.bincount(lengths[is_short], minlength=SHORT)
        if not is_short.all():
            self._long.append(np.array(lengths[~is_short]))

    @property
    def num_documents(self) -> int:
        return int(self._short.sum()) + sum(map(len, self._long))

    @property
    def shortest(self) -> int | None:
        return self._at(0) if self.num_documents else None

    @property
    def longest(self) -> int | None:
        return self._at(self.num_documents - 1) if self.num_documents else None

    @property
    def median(self) -> float | None:
        count = self.num_documents
        return (self._at((count - 1) // 2) + self._at(count // 2)) / 2 if count else None

    def histogram(self) -> list[Bucket]:
        """Documents by length: 0, 1, 2 to 3, 4 to 7, and so on by powers of two, up to the longest."""
        if not self.num_documents:
            return []
        long, longest = self._sorted_long(), self._at(self.num_documents - 1)
        buckets: list[Bucket] = []
        lowest = highest = 0
        while not buckets or buckets[-1].highest < longest:
            count = int(self._short[lowest : highest + 1].sum())
            count += int(np.searchsorted(long, highest, side="right") - np.searchsorted(long, lowest, side="left"))
            buckets.append(Bucket(lowest=lowest, highest=highest, num_documents=count))
            lowest, highest = highest + 1, 2 * highest + 1
        return buckets

    def _at(self, rank: int) -> int:
        """The length at `rank` of all lengths in ascending order."""
        num_short = int(self._short.sum())
        if rank < num_short:
            return int(np.searchsorted(np.cumsum(self._short), rank, side="right"))
        return int(self._sorted_long()[rank - num_short])

    def _sorted_long(self) -> npt.NDArray[np.integer]:
        return np.sort(np.concatenate([np.zeros(0, np.int32), *self._long]))
