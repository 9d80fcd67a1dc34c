"""What became of every record: counted by kind, so that nothing is dropped silently."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

# Why a record is bad, and what that means to a reader.
BAD_KINDS = {
    "malformed_json": "is not JSON",
    "not_an_object": "is JSON, but not an object",
    "missing_key": "has no such field",
    "null": "is null",
    "not_a_string": "is not a string",
    "invalid_utf8": "is not valid Unicode",
    "too_long": "is longer than the limit",
    "damaged_file": "cannot be read from here on",
    "special_token": "spells the name of a special token",
    "bad_metadata": "has a field to keep that cannot be written as JSON",
}


@dataclass(kw_only=True)
class Counters:
    """Records by what became of them.

    Attributes:
        lines: all records: lines of a .jsonl, rows of a .parquet, documents of a .txt.
        documents: what is in the data set.
        empty: blank lines and empty texts.
        filtered: left out by a filter, by its reason.
        duplicate: left out because an earlier document has the same text.
        bad: left out because they are malformed, by kind (BAD_KINDS).
    """

    lines: int = 0
    documents: int = 0
    empty: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    duplicate: int = 0
    bad: dict[str, int] = field(default_factory=dict)

    @property
    def num_bad(self) -> int:
        return sum(self.bad.values())

    @property
    def num_filtered(self) -> int:
        return sum(self.filtered.values())

    def is_complete(self) -> bool:
        """Whether every record is accounted for."""
        return self.lines == self.documents + self.empty + self.num_filtered + self.duplicate + self.num_bad

    def add(self, other: "Counters") -> None:
        """Count the records of `other`, too."""
        self.lines += other.lines
        self.documents += other.documents
        self.empty += other.empty
        self.duplicate += other.duplicate
        _add(self.filtered, other.filtered)
        _add(self.bad, other.bad)

    @classmethod
    def sum(cls, counters: Iterable["Counters"]) -> Self:
        total = cls()
        for one in counters:
            total.add(one)
        return total


@dataclass(frozen=True, kw_only=True)
class Offender:
    """A bad record: where it starts, in bytes of the (decompressed) file, or rows of a .parquet, and what is wrong."""

    file: str
    offset: int
    kind: str
    detail: str


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for key, count in more.items():
        counts[key] = counts.get(key, 0) + count
