"""Best-fit decreasing, in steps for many items at once."""

from bisect import bisect_left, insort

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


def best_fit_decreasing(lengths: Numbers, capacity: int) -> Numbers:
    """Which bin each item goes into, int64, shape (num_items,); bins are numbered from 0.

    From the longest to the shortest, each item goes into the bin with the least room that holds it. Items of one
    length are interchangeable, and so are bins with the same room: those are treated together. The bins get as full
    as they do one item at a time.

    Args:
        lengths: from 1 to `capacity`, shape (num_items,).

    Source: Ding et al., "Fewer truncations improve language modeling", 2024 (packing documents by best fit).
    """
    order = np.argsort(-lengths, kind="stable")
    bins, room = np.empty(len(lengths), np.int64), _Room(capacity)
    done = 0
    found, counts = np.unique(lengths, return_counts=True)
    for length, count in zip(found[::-1].tolist(), counts[::-1].tolist(), strict=True):
        bins[order[done : done + count]] = room.place(length, count)
        done += count
    return bins


class _Room:
    """Bins by the room that is left in them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._num_bins = 0
        self._rooms: list[int] = []  # ascending, each with bins
        self._bins: dict[int, list[Numbers]] = {}

    def place(self, length: int, count: int) -> Numbers:
        """The bins that `count` items of one length go into, shape (count,)."""
        placed = []
        while count:
            at = bisect_left(self._rooms, length)
            room = self._rooms[at] if at < len(self._rooms) else self._capacity
            # One that took an item has less room than all others that fit: it takes the next item, while it can.
            per_bin = room // length
            bins = self._take(room, -(-count // per_bin))
            fitting = min(count, per_bin * len(bins))
            placed.append(np.repeat(bins, per_bin)[:fitting])
            full, rest = divmod(fitting, per_bin)
            self._put(room - per_bin * length, bins[:full])
            self._put(room - rest * length, bins[full:])
            count -= fitting
        return np.concatenate(placed)

    def _take(self, room: int, count: int) -> Numbers:
        """Up to `count` bins with so much room, but one at least: of those that are there, or else new ones."""
        if room not in self._bins:
            self._num_bins += count
            return np.arange(self._num_bins - count, self._num_bins)
        bins = self._bins[room].pop()
        if len(bins) > count:
            self._bins[room].append(bins[count:])
        elif not self._bins[room]:
            del self._bins[room]
            del self._rooms[bisect_left(self._rooms, room)]
        return bins[:count]

    def _put(self, room: int, bins: Numbers) -> None:
        if len(bins) and room:
            if room not in self._bins:
                self._bins[room] = []
                insort(self._rooms, room)
            self._bins[room].append(bins)
