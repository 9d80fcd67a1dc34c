"""Which tokens are to be guessed, and what stands in their place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.objectives.masking import Masking, Replacement, Unit, choose_targets
from tests.unit.pipeline.objectives import chi_square
from tests.unit.pipeline.objectives.test_word_runs import made_flags, words_of
from tests.unit.pipeline.objectives.vocabularies import vocabulary

UNITS: tuple[Unit, ...] = ("token", "whole_word", "ngram", "span")
WORDS = UNITS[1:]
MASK = 2

maskings = st.builds(Masking, masking=st.sampled_from(UNITS), mask_rate=st.floats(0.01, 1), max_ngram=st.integers(1, 6))
flags = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200)


def targets(
    masking: Masking, is_maskable: np.ndarray, begins_word: np.ndarray | None = None, *, seed: int = 0
) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return choose_targets(masking, is_maskable=is_maskable, begins_word=begins_word, generator=generator)


@given(st.floats(0.01, 1), st.lists(st.booleans(), max_size=300), st.integers(0, 100))
def test_single_tokens_are_masked_in_exact_number(rate: float, maskable: list[bool], seed: int) -> None:
    is_maskable = np.array(maskable, np.bool_)
    found = targets(Masking(mask_rate=rate), is_maskable, seed=seed)
    count = sum(maskable)
    assert len(found) == (max(1, round(rate * count)) if count else 0)
    assert is_maskable[found].all()
    assert (np.diff(found) > 0).all()


@given(maskings, flags, st.integers(0, 100))
def test_special_tokens_are_never_masked_and_the_number_is_kept(
    masking: Masking, pairs: list[tuple[bool, bool]], seed: int
) -> None:
    is_maskable, begins_word = made_flags(pairs)
    found = targets(masking, is_maskable, begins_word, seed=seed)
    count = int(is_maskable.sum())
    assert is_maskable[found].all()
    assert (np.diff(found) > 0).all()
    assert min(count, 1) <= len(found) <= masking.num_targets(count) <= count


@given(maskings.filter(lambda masking: masking.masking != "token"), flags, st.integers(0, 100))
def test_words_are_masked_whole_unless_longer_than_all_that_is_masked(
    masking: Masking, pairs: list[tuple[bool, bool]], seed: int
) -> None:
    is_maskable, begins_word = made_flags(pairs)
    found = set(targets(masking, is_maskable, begins_word, seed=seed).tolist())
    left = masking.num_targets(int(is_maskable.sum())) - len(found)
    for word in words_of(is_maskable, begins_word):
        masked = found.intersection(word)
        if len(word) <= masking.num_targets(int(is_maskable.sum())):
            assert len(masked) in (0, len(word))
            assert masked or len(word) > left, "a word was left out though it fits"


@pytest.mark.parametrize("unit", WORDS)
def test_a_text_that_is_one_word_is_masked_as_often(unit: Unit) -> None:
    is_maskable = np.ones(500, np.bool_)
    begins_word = np.zeros(500, np.bool_)
    begins_word[0] = True
    assert len(targets(Masking(masking=unit), is_maskable, begins_word)) == 75


@pytest.mark.parametrize("unit", UNITS)
def test_each_word_is_masked_about_as_often(unit: Unit) -> None:
    """Words of two tokens, so that a short and a long distance from the ends of the text are both seen."""
    is_maskable = np.ones(240, np.bool_)
    begins_word = np.arange(240) % 2 == 0
    counts = np.zeros(240)
    for seed in range(3000):
        counts[targets(Masking(masking=unit), is_maskable, begins_word, seed=seed)] += 1
    inner = slice(40, -40) if unit in ("ngram", "span") else slice(None)  # runs seldom reach the first words
    expected = counts[inner].mean()
    # Six standard deviations of a binomial count: exceeded by one of 240 in 2 million times.
    assert abs(counts[inner] - expected).max() < 6 * (expected * 0.85) ** 0.5
    if unit in ("token", "whole_word"):
        assert expected == 3000 * 0.15


def test_shares_of_run_lengths_are_the_published_ones() -> None:
    assert Masking(masking="ngram").run_shares() == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert Masking(masking="ngram", max_ngram=1).run_shares() == pytest.approx([1])
    spans = Masking(masking="span").run_shares()
    assert len(spans) == 10
    assert spans[1:] / spans[:-1] == pytest.approx(0.8)
    assert spans @ np.arange(1, 11) == pytest.approx(3.8, abs=0.005), "the mean that SpanBERT's paper states"


@pytest.mark.parametrize("masking", [Masking(masking="ngram", max_ngram=4), Masking(masking="span")])
def test_runs_have_the_lengths_of_their_distribution(masking: Masking) -> None:
    """A text so long, and masked so little, that runs hardly ever meet."""
    rule = Masking(masking=masking.masking, max_ngram=masking.max_ngram, mask_rate=0.002)
    everything = np.ones(400_000, np.bool_)
    shares = rule.run_shares()
    counts = np.zeros(len(shares))
    for seed in range(6):
        found = targets(rule, everything, everything, seed=seed)
        breaks = np.flatnonzero(np.diff(found) > 1) + 1
        # The last run is cut where the number is reached, and two in a row look like one that is longer than any.
        lengths = np.diff([0, *breaks.tolist(), len(found)])
        counts += np.bincount(lengths, minlength=len(shares) + 1)[1 : len(shares) + 1]
    assert counts.sum() > 1000
    assert chi_square.fits(counts.tolist(), shares.tolist())


def test_replacements_have_their_shares() -> None:
    special = np.arange(1000) < 10
    words = vocabulary(mask_id=MASK, is_special=special)
    rule = Masking(mask_token_share=0.7, random_token_share=0.2)
    ids = np.full(100_000, 500)
    found = Replacement(rule, words).of(ids, np.random.default_rng(0))
    masked, same = (found == MASK).sum(), (found == 500).sum()
    assert chi_square.fits([masked, same, len(ids) - masked - same], [0.7, 0.1 + 0.2 / 990, 0.2 - 0.2 / 990])
    drawn = found[(found != MASK) & (found != 500)]
    assert not special[drawn].any()
    ordinary = np.setdiff1d(np.flatnonzero(~special), [500])
    assert chi_square.fits(np.bincount(drawn, minlength=1000)[ordinary].tolist(), [1.0] * len(ordinary))


@pytest.mark.parametrize(("mask", "random", "expected"), [(1.0, 0.0, {MASK}), (0.0, 0.0, {500}), (0.0, 1.0, {600})])
def test_replacements_of_one_kind(mask: float, random: float, expected: set[int]) -> None:
    words = vocabulary(mask_id=MASK, is_special=np.arange(1000) != 600)
    rule = Masking(mask_token_share=mask, random_token_share=random)
    assert {*Replacement(rule, words).of(np.full(1000, 500), np.random.default_rng(0)).tolist()} == expected


def test_rules_that_make_no_sense_are_defects() -> None:
    for fields in ({"mask_rate": 0}, {"mask_rate": 1.1}, {"mask_token_share": 0.95}, {"max_ngram": 0}):
        with pytest.raises(AssertionError):
            Masking(**fields)  # type: ignore[arg-type]
