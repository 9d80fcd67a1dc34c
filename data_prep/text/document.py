"""The records that flow through data preparation."""

from dataclasses import dataclass, field
from typing import Any

from data_prep.accounting import Counters, Offender


@dataclass(frozen=True, slots=True)
class Document:
    """One text, and where it came from.

    Attributes:
        id: names the record for error messages, such as `books.jsonl:12`; it is not written to a data set.
    """

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that cannot become a document, with the bytes of it that were read."""

    offender: Offender
    raw: bytes


@dataclass(slots=True, kw_only=True)
class Batch:
    """Records of one part of the input, in their order.

    Attributes:
        texts: of the documents; none is empty.
        metadata: what is kept of each document beside its text; None if nothing is.
        counters: all records, those in `texts` as documents.
        bad: those that are wrong.
        weight: how far the input was read, in the bytes that `units.Piece.weight` counts.
    """

    texts: list[str] = field(default_factory=list)
    metadata: list[dict[str, Any]] | None = None
    counters: Counters = field(default_factory=Counters)
    bad: list[BadRecord] = field(default_factory=list)
    weight: int = 0

    def extend(self, other: "Batch") -> None:
        """Add the records of `other`, which follow these."""
        self.texts += other.texts
        if self.metadata is not None:
            self.metadata += other.metadata or []
        self.counters.add(other.counters)
        self.bad += other.bad
        self.weight += other.weight

    def keep(self, kept: list[int]) -> None:
        """Keep the documents with these places in `texts`, in order; the caller counts the others."""
        self.texts = [self.texts[place] for place in kept]
        if self.metadata is not None:
            self.metadata = [self.metadata[place] for place in kept]
        self.counters.documents = len(self.texts)
