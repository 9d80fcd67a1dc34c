"""The small steps of a worker: batches put together, samples, shares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.accounting import Counters
from data_prep.text.document import Batch
from data_prep.text.units import Unit
from data_prep.tokenizing.worker import Sample, drop_duplicates, joined, share


def batch(texts: list[str], *, weight: int = 1) -> Batch:
    return Batch(texts=list(texts), counters=Counters(lines=len(texts), documents=len(texts)), weight=weight)


@given(texts=st.lists(st.lists(st.text(max_size=5), max_size=4), max_size=10), characters=st.integers(1, 12))
def test_batches_are_put_together_and_nothing_is_lost(texts: list[list[str]], characters: int) -> None:
    found = list(joined((batch(some) for some in texts), characters))
    assert [text for one in found for text in one.texts] == [text for some in texts for text in some]
    assert sum(one.weight for one in found) == len(texts)
    assert Counters.sum(one.counters for one in found).lines == sum(map(len, texts))
    assert all(sum(map(len, one.texts)) >= characters for one in found[:-1])


@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=20), size=st.integers(0, 30))
def test_a_sample_is_spread_over_the_unit_and_no_larger_than_asked_for(sizes: list[int], size: int) -> None:
    sample = Sample(size, len(sizes))
    places = [sample.places(batch(["x"] * count)) for count in sizes]
    assert all(
        len(set(some)) == len(some) and set(some) <= set(range(n)) for some, n in zip(places, sizes, strict=True)
    )
    assert sample.taken == sum(map(len, places)) <= size
    if min(sizes) >= size:
        assert sample.taken == size


def test_duplicates_are_dropped_by_their_place_in_the_unit() -> None:
    second = batch(["c", "d", "e"])
    drop_duplicates(second, np.array([1, 2, 4], np.uint32), 2)
    assert second.texts == ["d"]
    assert (second.counters.documents, second.counters.duplicate, second.counters.lines) == (1, 2, 3)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_tasks_share_all_units_evenly(count: int) -> None:
    units = [Unit(number, 0, ()) for number in range(20)]
    shares = [share(units, f"{index}/{count}") for index in range(count)]
    assert sorted(unit.number for some in shares for unit in some) == list(range(20))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
