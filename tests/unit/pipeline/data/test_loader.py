"""Micro-batches: which samples each rank sees, and the thread that reads them ahead."""

import threading
from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.loader import MicroBatches, Prefetcher
from pipeline.errors import DataError
from pipeline.objectives.samples import Batch


class Positions:
    """Batches that hold the positions that were asked for."""

    def batch(self, positions: npt.NDArray[np.int64]) -> Batch:
        return {"input_ids": positions}


def positions_of(rank: int, size: int, micro_batch_size: int, consumed: int, count: int) -> list[list[int]]:
    batches = MicroBatches(Positions(), micro_batch_size=micro_batch_size, rank=rank, size=size)
    return [batch["input_ids"].tolist() for batch in islice(batches.after(consumed), count)]


@given(
    size=st.integers(1, 4),
    micro_batch_size=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    consumed=st.integers(0, 99),
)
def test_ranks_together_use_the_next_positions_each_once(
    size: int, micro_batch_size: int, accumulation: int, consumed: int
) -> None:
    found = [
        position
        for rank in range(size)
        for batch in positions_of(rank, size, micro_batch_size, consumed, accumulation)
        for position in batch
    ]
    assert sorted(found) == list(range(consumed, consumed + size * micro_batch_size * accumulation))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=6))
def test_any_change_of_world_and_batch_keeps_the_sequence(lives: list[tuple[int, int, int]]) -> None:
    """A run that is stopped after a step and goes on with other sizes uses each position of the order once."""
    consumed, found = 0, []
    for size, micro_batch_size, accumulation in lives:
        step = [
            position
            for rank in range(size)
            for batch in positions_of(rank, size, micro_batch_size, consumed, accumulation)
            for position in batch
        ]
        found += sorted(step)
        consumed += len(step)
    assert found == list(range(consumed))


def test_a_count_ends_them() -> None:
    batches = MicroBatches(Positions(), micro_batch_size=2, rank=1, size=2).after(0, count=2)
    assert [batch["input_ids"].tolist() for batch in batches] == [[2, 3], [6, 7]]


def numbered(count: int) -> Iterator[Batch]:
    for index in range(count):
        yield {"input_ids": np.array([index])}


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_prefetching_changes_nothing(depth: int) -> None:
    batches = Prefetcher(numbered(9), depth)
    assert [int(batch["input_ids"][0]) for batch in batches] == list(range(9))
    assert batches.wait_seconds > 0
    batches.close()


def test_an_error_of_the_thread_reaches_the_reader() -> None:
    def failing() -> Iterator[Batch]:
        yield from numbered(1)
        raise DataError("shard_00001.bin is cut")

    batches = Prefetcher(failing(), 2)
    next(batches)
    with pytest.raises(DataError, match=r"shard_00001\.bin is cut"):
        next(batches)
    batches.close()


def test_closing_ends_the_thread_while_the_queue_is_full() -> None:
    before = threading.active_count()
    batches = Prefetcher(numbered(1000), 2)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_no_more_than_depth_is_read_ahead() -> None:
    taken = []

    def counting() -> Iterator[Batch]:
        for index in range(1000):
            taken.append(index)
            yield {"input_ids": np.array([index])}

    batches = Prefetcher(counting(), 3)
    next(batches)
    batches.close()
    assert len(taken) <= 3 + 2, "one with the reader, three in the queue, one in the thread's hand"
