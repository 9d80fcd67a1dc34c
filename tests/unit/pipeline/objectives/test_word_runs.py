"""Runs of words, against the rules written out slowly."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.objectives.word_runs import Words, choose_words, find_words

flags = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


def made_flags(pairs: list[tuple[bool, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that may be masked, and tokens that begin words: so does the first of each text."""
    is_maskable = np.array([pair[0] for pair in pairs], np.bool_)
    begins = np.array([pair[1] for pair in pairs], np.bool_)
    return is_maskable, begins | ~np.concatenate([[False], is_maskable])[:-1]


def words_of(is_maskable: np.ndarray, begins_word: np.ndarray) -> list[list[int]]:
    """The places of the tokens of each word, found one by one."""
    words: list[list[int]] = []
    for place in np.flatnonzero(is_maskable).tolist():
        if not words or begins_word[place] or not is_maskable[place - 1]:
            words.append([])
        words[-1].append(place)
    return words


def plain_choice(lengths: list[int], texts: list[int], budget: int, order: list[int], runs: list[int]) -> set[int]:
    chosen: set[int] = set()
    for first, run in zip(order, runs, strict=True):
        if first in chosen:
            continue
        for word in range(first, first + run):
            if word == len(lengths) or texts[word] != texts[first]:
                break
            if word not in chosen:
                if sum(lengths[one] for one in chosen) + lengths[word] > budget:
                    break
                chosen.add(word)
    return chosen


@given(flags, st.integers(1, 10))
def test_words_are_found(pairs: list[tuple[bool, bool]], longest: int) -> None:
    is_maskable, begins_word = made_flags(pairs)
    places = np.flatnonzero(is_maskable)
    words = find_words(places, begins_word[places], longest=longest)
    expected: list[list[int]] = []
    for word in words_of(is_maskable, begins_word):
        expected += [word] if len(word) <= longest else [[place] for place in word]
    assert words.lengths.tolist() == [len(word) for word in expected]
    # The text of a word ends where the next special token is, or the sample.
    ends = [next((n for n in range(word[-1] + 1, len(is_maskable)) if not is_maskable[n]), None) for word in expected]
    for number, end in enumerate(words.text_ends.tolist()):
        assert ends[number : end + 1].count(ends[number]) == end - number


@given(st.data(), st.lists(st.integers(1, 4), min_size=8, max_size=40), st.integers(1, 20))
def test_runs_are_chosen_by_the_plain_rule(data: st.DataObject, lengths: list[int], budget: int) -> None:
    count = len(lengths)
    texts = sorted(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    order = data.draw(st.permutations(range(count)))
    runs = data.draw(st.lists(st.integers(1, 10), min_size=count, max_size=count))
    words = Words(np.array(lengths, np.intp), np.searchsorted(texts, texts, side="right"))
    chosen = choose_words(words, budget=budget, order=order, run_lengths=runs)
    assert {*np.flatnonzero(chosen).tolist()} == plain_choice(lengths, texts, budget, order, runs)
