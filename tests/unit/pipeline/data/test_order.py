"""The order of samples: a permutation of each epoch, at once anywhere, of its own for each seed and epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.order import CHUNK, SourceOrder, permuted

sizes = st.integers(1, 3000)
seeds = st.integers(0, 2**32 - 1)


def epoch_of(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    return permuted(np.arange(num_samples), size=num_samples, key=f"{seed}:{epoch}")


@given(sizes, seeds, st.integers(0, 1000))
def test_an_epoch_holds_each_sample_once(num_samples: int, seed: int, epoch: int) -> None:
    ids = epoch_of(num_samples, seed, epoch)
    assert ids.dtype == np.int64
    assert np.array_equal(np.sort(ids), np.arange(num_samples))


def test_an_epoch_of_many_chunks_holds_each_sample_once() -> None:
    size = 5 * CHUNK + 3
    assert np.array_equal(np.sort(epoch_of(size, 1, 0)), np.arange(size))


@given(sizes, seeds, st.integers(0, 10_000), st.lists(st.integers(0, 400), min_size=1, max_size=6))
def test_the_order_does_not_depend_on_how_it_is_cut(num_samples: int, seed: int, start: int, counts: list[int]) -> None:
    order, position, pieces = SourceOrder(num_samples=num_samples, key=str(seed)), start, []
    for count in counts:
        pieces.append(np.stack(order.epochs_and_ids(np.arange(position, position + count))))
        position += count
    fresh = SourceOrder(num_samples=num_samples, key=str(seed))
    whole = np.stack(fresh.epochs_and_ids(np.arange(start, start + sum(counts))))
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)


@given(sizes, seeds, st.sets(st.integers(0, 20_000), max_size=50))
def test_a_rank_sees_at_its_places_what_is_there(num_samples: int, seed: int, places: set[int]) -> None:
    indices = np.array(sorted(places), np.int64)
    epochs, ids = SourceOrder(num_samples=num_samples, key=str(seed)).epochs_and_ids(indices)
    assert epochs.tolist() == [index // num_samples for index in indices.tolist()]
    for index, epoch, found in zip(indices.tolist(), epochs.tolist(), ids.tolist(), strict=True):
        assert epoch_of(num_samples, seed, epoch)[index % num_samples] == found


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


@pytest.mark.parametrize("num_samples", [10**12, 2**40, 2**52 + 12345, 2**63 - 1])
def test_any_place_of_a_huge_order_is_had_at_once(num_samples: int) -> None:
    offsets = np.array([0, 1, num_samples // 2, num_samples - 2, num_samples - 1])
    ids = permuted(offsets, size=num_samples, key="huge")
    assert ((ids >= 0) & (ids < num_samples)).all()
    assert len(set(ids.tolist())) == len(offsets)
    assert np.array_equal(permuted(offsets[3:4], size=num_samples, key="huge"), ids[3:4])


def test_the_order_stays_as_it_is() -> None:
    """A change of these numbers breaks the resumption of every run begun before it."""
    _, ids = SourceOrder(num_samples=1000, key="1234:source").epochs_and_ids(np.arange(998, 1004))
    assert ids.tolist() == [924, 229, 620, 211, 815, 371]
