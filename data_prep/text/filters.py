"""Which documents are kept: a filter looks at a text and lets it pass, or gives the reason to leave it out.

A new filter is a function here and a setting of the job that `filters_of` reads. Documents that a filter leaves out are
counted by its reason.
"""

from collections.abc import Callable, Sequence

Filter = Callable[[str], str | None]


def at_least(min_characters: int) -> Filter:
    """Leaves out texts with fewer characters."""
    reason = f"shorter than {min_characters} characters"
    return lambda text: reason if len(text) < min_characters else None


def filters_of(*, min_characters: int) -> list[Filter]:
    """The filters of a job, in the order in which they look."""
    return [at_least(min_characters)] if min_characters > 1 else []


def apply(filters: Sequence[Filter], texts: Sequence[str]) -> tuple[list[int], dict[str, int]]:
    """The places of the texts that all filters let pass, and how many were left out by reason."""
    kept, reasons = [], dict[str, int]()
    for place, text in enumerate(texts):
        reason = next((found for filter_ in filters if (found := filter_(text)) is not None), None)
        if reason is None:
            kept.append(place)
        else:
            reasons[reason] = reasons.get(reason, 0) + 1
    return kept, reasons
