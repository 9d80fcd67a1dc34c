"""The record that flows through data preparation."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One text, and where it came from.

    Attributes:
        id: names the record for error messages, such as `books.jsonl:12`; it is not written to a data set.
    """

    id: str
    text: str
