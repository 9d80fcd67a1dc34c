"""Filters say what they leave out, and why."""

from hypothesis import given
from hypothesis import strategies as st

from data_prep.text.filters import apply, at_least, filters_of


@given(texts=st.lists(st.text(max_size=8)), least=st.integers(1, 8))
def test_short_texts_are_left_out_by_characters(texts: list[str], least: int) -> None:
    kept, reasons = apply(filters_of(min_characters=least), texts)
    expected = [place for place, text in enumerate(texts) if len(text) >= least or least == 1]
    assert kept == expected
    assert sum(reasons.values()) == len(texts) - len(kept)
    assert set(reasons) <= {f"shorter than {least} characters"}


def test_the_first_filter_that_objects_gives_the_reason() -> None:
    assert apply([at_least(2), at_least(4)], ["a", "bcd", "efgh"]) == (
        [2],
        {"shorter than 2 characters": 1, "shorter than 4 characters": 1},
    )
