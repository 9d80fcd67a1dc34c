"""The order of samples: a permutation of each epoch, at once anywhere, of its own for each seed and epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.order import sample_ids
from pipeline.errors import DataError

sizes = st.integers(1, 3000)
seeds = st.integers(0, 2**32 - 1)


def epoch_of(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    return sample_ids(num_samples=num_samples, seed=seed, position=epoch * num_samples, count=num_samples)


@given(sizes, seeds, st.integers(0, 1000))
def test_an_epoch_holds_each_sample_once(num_samples: int, seed: int, epoch: int) -> None:
    ids = epoch_of(num_samples, seed, epoch)
    assert ids.dtype == np.int64
    assert np.array_equal(np.sort(ids), np.arange(num_samples))


@given(sizes, seeds, st.integers(0, 10_000), st.lists(st.integers(0, 400), min_size=1, max_size=6))
def test_the_order_does_not_depend_on_how_it_is_cut(num_samples: int, seed: int, start: int, counts: list[int]) -> None:
    position, pieces = start, []
    for count in counts:
        pieces.append(sample_ids(num_samples=num_samples, seed=seed, position=position, count=count))
        position += count
    whole = sample_ids(num_samples=num_samples, seed=seed, position=start, count=sum(counts))
    assert np.array_equal(np.concatenate(pieces), whole)


@given(st.integers(100, 3000), seeds, st.integers(0, 100))
def test_seeds_and_epochs_have_orders_of_their_own(num_samples: int, seed: int, epoch: int) -> None:
    ids = epoch_of(num_samples, seed, epoch)
    # Two independent permutations agree in one place on average; in 12 or more with probability 1e-9.
    assert (ids == epoch_of(num_samples, seed, epoch + 1)).sum() < 12
    assert (ids == epoch_of(num_samples, seed + 1, epoch)).sum() < 12
    assert (ids == np.arange(num_samples)).sum() < 12


def test_the_order_has_no_trend() -> None:
    """Neighbours in the order are as far apart, and as often up as down, as those of a random permutation."""
    size = 100_000
    steps = np.diff(epoch_of(size, 1, 0))
    assert abs((steps > 0).mean() - 0.5) < 5 * (1 / 12 / size) ** 0.5
    assert np.abs(steps).mean() / size == pytest.approx(1 / 3, abs=5 * (1 / 18 / size) ** 0.5)


def test_every_permutation_of_a_small_set_comes_about_as_often() -> None:
    draws = 2400
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(draws):
        order = tuple(epoch_of(4, seed, 0).tolist())
        counts[order] = counts.get(order, 0) + 1
    expected = draws / 24
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert len(counts) == 24
    assert chi_squared < 57, "chi-squared of 23 degrees of freedom is above 57 once in 10,000"


def test_far_positions_of_huge_data_sets_are_had_at_once() -> None:
    num_samples = 2**52 + 12345
    ids = sample_ids(num_samples=num_samples, seed=1, position=3 * num_samples - 2, count=4)
    assert ((ids >= 0) & (ids < num_samples)).all()
    assert len(set(ids.tolist())) == 4


def test_the_order_stays_as_it_is() -> None:
    """A change of these numbers breaks the resumption of every run begun before it."""
    assert sample_ids(num_samples=1000, seed=1234, position=998, count=6).tolist() == [71, 888, 247, 595, 675, 272]


def test_a_data_set_without_samples_is_refused() -> None:
    with pytest.raises(DataError, match=r"no whole sample.*model\.seq_len"):
        sample_ids(num_samples=0, seed=1, position=0, count=1)
