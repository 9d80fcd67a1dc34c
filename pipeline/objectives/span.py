"""Span corruption: spans are cut out of a text, each leaves a sentinel, and the decoder writes them all.

Dims: B samples of N tokens each.

Source: Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer", 2020, and
the rule as published with it (`random_spans_noise_mask`, `noise_span_to_unique_sentinel` of t5.data.preprocessors):
kept and cut spans alternate, beginning with a kept one; how many tokens and spans are cut follows from the length; of
all ways to cut these, each is equally likely.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]


class Sides(NamedTuple):
    """What an encoder reads and a decoder writes, without the ends.

    Attributes:
        inputs, targets: ids, int32, shape (B, any width).
        input_lengths, target_lengths: how many of a row count, int64, shape (B,).
    """

    inputs: Ids
    input_lengths: Lengths
    targets: Ids
    target_lengths: Lengths


@dataclass(frozen=True, kw_only=True)
class SpanCorruption:
    """The rule of T5.

    Attributes:
        noise_density: the share of tokens that are cut out, between 0 and 1.
        mean_span_length: of what is cut out, in tokens, at least 1.
    """

    noise_density: float = 0.15
    mean_span_length: float = 3.0

    def counts(self, raw: int) -> tuple[int, int]:
        """How many of `raw` tokens are cut out, and in how many spans."""
        # As published, halves are rounded to even numbers, and something is cut out of all that has two tokens.
        num_noise = min(max(round(raw * self.noise_density), 1), max(raw - 1, 0))
        num_spans = max(round(num_noise / self.mean_span_length), 1)
        return num_noise, min(num_spans, num_noise, raw - num_noise)

    def lengths(self, raw: int) -> tuple[int, int]:
        """Inputs and targets made of `raw` tokens, each with its end."""
        num_noise, num_spans = self.counts(raw)
        return raw - num_noise + num_spans + 1, num_noise + num_spans + 1

    mean_lengths = lengths

    def num_sentinels(self, raw: int) -> int:
        """How many sentinels `raw` tokens need."""
        return self.counts(raw)[1]

    def fits(self, raw: int, seq_len: int, target_len: int | None) -> bool:
        """Whether what becomes of `raw` tokens is not longer than encoder and decoder; None takes any targets."""
        if target_len is None and self.noise_density == 0.5:
            target_len = seq_len  # as published: of two sides that differ by rounding alone, the inputs are filled
        inputs, targets = self.lengths(raw)
        return inputs <= seq_len and (target_len is None or targets <= target_len)

    def apply(self, tokens: Ids, random: npt.NDArray[np.float64], sentinels: Ids) -> Sides:
        """Texts of one length, corrupted.

        Args:
            tokens: shape (B, N).
            random: drawn from [0, 1), shape (B, at least N - 2).
            sentinels: ids in the order in which spans get them.
        """
        num_rows, width = tokens.shape
        num_noise, num_spans = self.counts(width)
        # From here on rows lie one behind the other. Spans alternate: one that is kept, one that is cut out.
        spans = _spans(random, width - num_noise, num_noise, num_spans)
        is_noise = np.repeat(np.tile([False, True], num_rows * num_spans), spans)
        if num_spans == 0:
            is_noise = np.zeros(tokens.size, np.bool_)
        begins = np.cumsum(spans) - spans
        marks = np.tile(sentinels[:num_spans], num_rows)
        inputs = _marked(tokens, ~is_noise, begins[1::2], marks)
        targets = _marked(tokens, is_noise, begins[0::2], marks)
        lengths = (np.full(num_rows, side.shape[1], np.int64) for side in (inputs, targets))
        return Sides(inputs, next(lengths), targets, next(lengths))


def _spans(random: npt.NDArray[np.float64], num_kept: int, num_noise: int, num_spans: int) -> Lengths:
    """The lengths of all rows' spans, kept and cut out in turn, shape (B * 2 * num_spans,)."""
    kept = _segments(random[:, : max(num_kept - 1, 0)], num_kept, num_spans)
    noise = _segments(random[:, max(num_kept - 1, 0) :], num_noise, num_spans)
    return np.stack([kept, noise], axis=2).reshape(-1)


def _segments(random: npt.NDArray[np.float64], num_items: int, num_segments: int) -> Lengths:
    """Lengths of non-empty segments of `num_items`, all ways to cut them equally likely; shape (B, num_segments)."""
    num_rows = len(random)
    if num_segments < 2:
        return np.full((num_rows, num_segments), num_items)
    # The smallest of as many numbers as there are places to cut at say where to: a draw without replacement.
    places = np.argpartition(random[:, : num_items - 1], num_segments - 2, axis=1)[:, : num_segments - 1]
    places.sort(axis=1)
    return np.diff(places + 1, axis=1, prepend=0, append=num_items)


def _marked(tokens: Ids, keep: npt.NDArray[np.bool_], places: Lengths, marks: Ids) -> Ids:
    """What is kept of each row, with a mark at the beginning of each span that is not; shape (B, -1)."""
    marked, keep = tokens.flatten(), keep.copy()
    marked[places], keep[places] = marks, True
    return marked[keep].reshape(len(tokens), -1)
