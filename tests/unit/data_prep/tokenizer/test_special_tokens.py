"""Names of special tokens in texts are found, all of them and only them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.tokenizer.special_tokens import SpecialNames, cutter, refused

NAMES = st.lists(st.text("<|>abs/_", min_size=1, max_size=6), max_size=30)


@given(names=NAMES, texts=st.lists(st.text("<|>abs/_ x", max_size=40)))
def test_every_text_with_a_name_is_found(names: list[str], texts: list[str]) -> None:
    found = SpecialNames(names)
    assert found.holds_special(texts) == [i for i, text in enumerate(texts) if any(name in text for name in names)]
    for text in texts:
        first = found.first_name(text)
        assert (first is None) == (not any(name in text for name in names))
        assert first is None or min(text.find(name) for name in names if name in text) == text.find(first)


@given(names=NAMES, text=st.text("<|>abs/_ x"))
def test_cutting_loses_nothing(names: list[str], text: str) -> None:
    parts = cutter(names)(text)
    assert "".join(parts) == text
    assert all(not any(name in part for name in names) for part in parts[::2])
    assert all(part in names for part in parts[1::2])


def test_the_longest_name_is_cut_out() -> None:
    assert cutter(["<a>", "<a><b>"])("x<a><b><a>") == ["x", "<a><b>", "", "<a>", ""]


def test_no_names_hold_in_no_text() -> None:
    assert SpecialNames([]).holds_special(["<s>", ""]) == []
    assert SpecialNames([""]).holds_special(["<s>", ""]) == []


def test_the_refusal_says_where_what_and_what_to_do() -> None:
    with pytest.raises(Exception, match=r"a\.jsonl:7 spells the special token '<s>'.*--special-in-text split"):
        raise refused("<s>", "a.jsonl:7")
