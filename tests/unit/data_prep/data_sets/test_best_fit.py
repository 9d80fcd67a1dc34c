"""Best-fit decreasing for many items at once, against one item at a time."""

import time

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from data_prep.data_sets.best_fit import best_fit_decreasing


def one_at_a_time(lengths: list[int], capacity: int) -> list[list[int]]:
    """The lengths in each bin, by the rule as it is written down."""
    bins: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [content for content in bins if capacity - sum(content) >= length]
        if fitting:
            min(fitting, key=lambda content: capacity - sum(content)).append(length)
        else:
            bins.append([length])
    return bins


@given(st.integers(1, 30).flatmap(lambda capacity: st.tuples(st.lists(st.integers(1, capacity)), st.just(capacity))))
@example(([1] * 50 + [2] * 50 + [7] * 20, 9))
@example(([10], 10))
@example(([], 5))
def test_the_bins_are_as_full_as_one_item_at_a_time_makes_them(case: tuple[list[int], int]) -> None:
    lengths, capacity = case
    bins = best_fit_decreasing(np.array(lengths, np.int64), capacity)
    assert bins.shape == (len(lengths),)
    filled = np.bincount(bins, weights=lengths).astype(int)
    # Which of two bins with the same room an item goes into is nobody's rule: how full they are does not depend on it.
    assert sorted(filled) == sorted(map(sum, one_at_a_time(lengths, capacity)))


def test_lengths_as_documents_have_them() -> None:
    lengths = np.random.default_rng(0).lognormal(5, 1.2, 2_000).astype(np.int64).clip(1, 2049)
    bins = best_fit_decreasing(lengths, 2049)
    filled = np.bincount(bins, weights=lengths)
    expected = one_at_a_time(lengths.tolist(), 2049)
    assert sorted(filled.astype(int)) == sorted(map(sum, expected))


def test_steps_do_not_grow_with_the_number_of_items() -> None:
    lengths = np.random.default_rng(0).integers(1, 65, 2_000_000)
    started = time.process_time()
    bins = best_fit_decreasing(lengths, 64)
    assert time.process_time() - started < 10  # one at a time, it takes minutes
    assert np.bincount(bins, weights=lengths).max() == 64
    assert bins.max() + 1 < lengths.sum() / 64 * 1.001
