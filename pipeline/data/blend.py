"""Which source the sample at each position of a run comes from. A function of the position alone: nothing is built.

Time is cut into segments, in which the shares of the sources do not change. A segment repeats one pattern of sources,
in which each source has its exact share, evenly spread. A segment ends where a phase with other weights begins, or
where a source has been read as often as it may; all sources go on where they were.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from pipeline.errors import DataError

MAX_BLOCK = 2**20  # positions after which a pattern repeats at the latest: 12 MB
MAX_POSITION = 2**62  # no run comes so far; what would change there does not
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BlendSource:
    """One source of a blend.

    Attributes:
        key: names its content, so that its order does not depend on its name and place.
        num_samples: in one epoch.
        max_samples: in the whole run; None does not bound them.
        replaced_by: the source that has its share from then on; None gives it to all others, in proportion.
    """

    name: str
    key: str
    num_samples: int
    max_samples: int | None = None
    replaced_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The weights of the sources, by name, from a position on; they need not sum up to 1."""

    start: int
    weights: Mapping[str, Fraction]


@dataclass(frozen=True)
class _Segment:
    """A stretch of positions with one pattern.

    Attributes:
        start: its first position.
        before: samples of each source before it; int64, shape (num_sources,).
        per_block: samples of each source in the pattern; int64, shape (num_sources,).
        sources: of each place in the pattern; int32, shape (block,).
        ranks: places of the same source before it in the pattern; int64, shape (block,).
    """

    start: int
    before: Ids
    per_block: Ids
    sources: npt.NDArray[np.int32]
    ranks: Ids

    def locate(self, positions: Ids) -> tuple[Ids, Ids]:
        """The source of each sample, and how many of its samples came before it."""
        since = positions - self.start
        blocks, offsets = since // len(self.sources), since % len(self.sources)
        sources = self.sources[offsets].astype(np.int64)
        return sources, self.before[sources] + blocks * self.per_block[sources] + self.ranks[offsets]

    def counts(self, position: int) -> Ids:
        """Samples of each source before `position`, which is not before the segment."""
        blocks, offset = divmod(position - self.start, len(self.sources))
        within = np.bincount(self.sources[:offset], minlength=len(self.before))
        return self.before + blocks * self.per_block + within

    def position_of(self, source: int, index: int) -> int:
        """Where this segment would read sample `index` of a source that has a share."""
        blocks, rank = divmod(index - int(self.before[source]), int(self.per_block[source]))
        place = np.flatnonzero(self.sources == source)[rank]
        return self.start + blocks * len(self.sources) + int(place)


class Blend:
    """The sources of a run, mixed.

    Segments are laid out when a position in them is asked for: each costs up to a tenth of a second and 12 MB.

    Args:
        phases: the first one starts at 0, no two at one position, and each gives a source a weight.
    """

    def __init__(self, sources: Sequence[BlendSource], phases: Sequence[Phase]) -> None:
        assert phases[0].start == 0
        assert all(source.num_samples > 0 for source in sources)
        assert all(any(phase.weights.values()) for phase in phases)
        self.sources = tuple(sources)
        self._names = {source.name: index for index, source in enumerate(sources)}
        self._segments: list[_Segment] = []
        self._starts: list[int] = []
        self._known_to = 0  # positions before it lie in the segments that were laid out
        self._end: int | None = None
        self._coming = self._lay_out([phase for phase in phases if phase.start < MAX_POSITION])

    def locate(self, positions: Ids) -> tuple[Ids, Ids]:
        """The source of the sample at each position, and how many of its samples came before it.

        Args:
            positions: int64, shape (count,), ascending.

        Raises:
            DataError: no source may be read any more.
        """
        if len(positions) and not self._reaches(int(positions[-1]) + 1):
            raise DataError(self._exhausted())
        pieces = [self._segments[number].locate(positions[start:stop]) for number, start, stop in self._cut(positions)]
        if len(pieces) == 1:
            return pieces[0]
        sources, indices = zip(*pieces, strict=True) if pieces else ((), ())
        none = np.empty(0, np.int64)
        return np.concatenate([none, *sources]), np.concatenate([none, *indices])

    def _cut(self, positions: Ids) -> Iterator[tuple[int, int, int]]:
        """The segments that ascending positions lie in, each with its part of them."""
        segments = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(segments).tolist():
            start, stop = np.searchsorted(segments, [number, number + 1]).tolist()
            yield number, start, stop

    def counts(self, position: int) -> Ids:
        """Samples of each source before `position`; int64, shape (num_sources,)."""
        return self._segment_at(position).counts(min(position, self._end or MAX_POSITION))

    def shares(self, position: int) -> list[float]:
        """The share of each source at `position`, as it is read."""
        segment = self._segment_at(position)
        return [int(count) / len(segment.sources) for count in segment.per_block]

    def changes(self, before: int) -> list[int]:
        """The positions at which shares change, those up to `before`."""
        self._reaches(before + 1)
        return [start for start in self._starts[1:] if start <= before]

    def fingerprint(self, position: int) -> str:
        """xxh3-128 of what was read before `position`: equal for blends that differ only in what comes later."""
        self._reaches(position)
        past = [
            [
                segment.start,
                [
                    [source.key, source.num_samples, int(count), int(before)]
                    for source, count, before in zip(self.sources, segment.per_block, segment.before, strict=True)
                    if count
                ],
            ]
            for segment in self._segments
            if segment.start < position
        ]
        return str(xxhash.xxh3_128_hexdigest(orjson.dumps(past)))

    def check_length(self, num_samples: int) -> None:
        """Raise DataError unless there are `num_samples` samples."""
        if not self._reaches(num_samples):
            raise DataError(f"the run reads {num_samples} samples, but {self._exhausted()}")

    def _exhausted(self) -> str:
        return (
            f"after {self._end} samples every source that has a share then has been read max_epochs times. Raise "
            "max_epochs in data.train, name a source as replaced_by, begin a phase earlier, or lower run.steps."
        )

    def _segment_at(self, position: int) -> _Segment:
        self._reaches(position + 1)
        return self._segments[bisect_right(self._starts, position) - 1]

    def _reaches(self, position: int) -> bool:
        """Whether there is a sample at each place before `position`; the segments up to there are laid out then."""
        while self._known_to < min(position, MAX_POSITION) and self._end is None:
            segment, stop = next(self._coming)
            if segment is None:
                self._end = stop
            else:
                self._segments.append(segment)
                self._starts.append(segment.start)
                self._known_to = stop
        return self._end is None or position <= self._end

    def _lay_out(self, phases: Sequence[Phase]) -> Iterator[tuple[_Segment | None, int]]:
        """The segments, each with its stop; None at the end of all samples."""
        counts = np.zeros(len(self.sources), np.int64)
        for number, phase in enumerate(phases):
            start = phase.start
            stop = phases[number + 1].start if number + 1 < len(phases) else None
            while stop is None or start < stop:
                weights = self._weights(phase, counts)
                if not any(weights):
                    yield None, start
                    return
                segment = _segment(start, counts, weights)
                start = min(
                    (end for end in (*self._exhaustions(segment), stop) if end is not None), default=MAX_POSITION
                )
                yield segment, min(start, MAX_POSITION)
                counts = segment.counts(min(start, MAX_POSITION))

    def _exhaustions(self, segment: _Segment) -> list[int]:
        """Where each bounded source that is read in a segment would be read too often."""
        return [
            segment.position_of(index, source.max_samples)
            for index, source in enumerate(self.sources)
            if source.max_samples is not None and segment.per_block[index]
        ]

    def _weights(self, phase: Phase, counts: Ids) -> list[Fraction]:
        """The weights of a phase after the sources that may not be read any more have handed theirs on."""
        weights = [phase.weights.get(source.name, Fraction(0)) for source in self.sources]
        used_up = [
            source.max_samples is not None and int(count) >= source.max_samples
            for source, count in zip(self.sources, counts, strict=True)
        ]
        for index, source in enumerate(self.sources):
            heir, seen = source, {source.name}
            while used_up[self._names[heir.name]] and heir.replaced_by and heir.replaced_by not in seen:
                heir = self.sources[self._names[heir.replaced_by]]
                seen.add(heir.name)
            if used_up[index]:
                weights[self._names[heir.name]] += weights[index]
        return [Fraction(0) if gone else weight for gone, weight in zip(used_up, weights, strict=True)]


def _segment(start: int, before: Ids, weights: Sequence[Fraction]) -> _Segment:
    per_block = _per_block(weights)
    sources = np.repeat(np.arange(len(weights), dtype=np.int32), per_block)
    ranks = np.concatenate([np.arange(count, dtype=np.int64) for count in per_block])
    # Sample r of n is due at (r + 1/2) / n of the block: sorted by that, no prefix is off by more than a sample or two.
    order = np.argsort((ranks + 0.5) / per_block[sources], kind="stable")
    return _Segment(start, before, per_block, sources[order], ranks[order])


def _per_block(weights: Sequence[Fraction]) -> Ids:
    """Samples of each source in a block: the shortest in which the weights are whole numbers, if that is short enough.

    Otherwise in MAX_BLOCK, rounded by largest remainder; a source with a weight has one at least.
    """
    total = sum(weights, Fraction(0))
    shares = [weight / total for weight in weights]
    block = math.lcm(*(share.denominator for share in shares))
    if block <= MAX_BLOCK:
        return np.array([int(share * block) for share in shares], np.int64)
    counts = np.array([max(int(share * MAX_BLOCK), share > 0) for share in shares], np.int64)
    remainders = [float(share * MAX_BLOCK - int(count)) for share, count in zip(shares, counts, strict=True)]
    missing = MAX_BLOCK - int(counts.sum())
    counts[np.argsort(remainders, kind="stable")[::-1][: max(missing, 0)]] += 1
    counts[np.argmax(counts)] += min(missing, 0)  # more than MAX_BLOCK sources with hardly a weight are not foreseen
    return counts
