"""Documents that lie one after the other: picked and cut with all that belongs to them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.metadata import Lines
from data_prep.ragged import gather


class Sequences(NamedTuple):
    """The lengths of sequences in tokens, int64, shape (num_sequences,), and how many each document has, int64,
    shape (num_documents,).
    """

    lengths: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @property
    def document_lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each document, int64, shape (num_documents,)."""
        ends = np.cumsum(np.concatenate([[0], self.lengths]), dtype=np.int64)
        return np.diff(ends[np.cumsum(np.concatenate([[0], self.counts]), dtype=np.int64)])

    def pick(self, rows: npt.NDArray[np.int64]) -> "Sequences":
        """Those of these documents, in their order."""
        counts = self.counts[rows]
        return Sequences(gather(self.lengths, (np.cumsum(self.counts) - self.counts)[rows], counts), counts)


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Some documents.

    Attributes:
        tokens: of all, shape (num_tokens,).
        lengths: of each in tokens, int64, shape (num_documents,).
        sequences: of which they consist; None where each is one.
        metadata: a line for each; None where none is kept.
    """

    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    sequences: Sequences | None
    metadata: Lines | None

    def pick(self, rows: npt.NDArray[np.int64]) -> "Documents":
        """Those with these numbers, from 0, in their order; copied."""
        lengths = self.lengths[rows]
        return Documents(
            tokens=gather(self.tokens, (np.cumsum(self.lengths) - self.lengths)[rows], lengths),
            lengths=lengths,
            sequences=self.sequences.pick(rows) if self.sequences else None,
            metadata=self.metadata.pick(rows) if self.metadata else None,
        )

    def part(self, first: int, last: int) -> "Documents":
        """Those from number `first` up to `last`, exclusive; not copied."""
        return Documents(
            tokens=self.tokens[_rows(self.lengths, first, last)],
            lengths=self.lengths[first:last],
            sequences=self.sequences
            and Sequences(
                self.sequences.lengths[_rows(self.sequences.counts, first, last)], self.sequences.counts[first:last]
            ),
            metadata=self.metadata
            and Lines(
                self.metadata.content[_rows(self.metadata.lengths, first, last)], self.metadata.lengths[first:last]
            ),
        )


def _rows(lengths: npt.NDArray[np.int64], first: int, last: int) -> slice:
    """Where rows of these lengths lie that follow each other."""
    start = int(lengths[:first].sum())
    return slice(start, start + int(lengths[first:last].sum()))
