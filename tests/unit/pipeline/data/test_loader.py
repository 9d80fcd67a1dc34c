"""Micro-batches: which samples each rank sees, and the thread that reads them ahead."""

import threading
from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.loader import MicroBatches, Prefetcher
from pipeline.data.order import sample_ids
from pipeline.data.token_stream import TokenStream
from pipeline.errors import DataError
from tests.data_sets import write_data_set

SEQ_LEN = 4
NUM_TOKENS = 101  # token i is the number i, so that a sample shows where it was read
Batch = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> TokenStream:
    return TokenStream(write_data_set(tmp_path_factory.mktemp("data"), [[range(40)], [range(40, NUM_TOKENS)]]))


def ranks_of(stream: TokenStream, size: int, micro_batch_size: int) -> list[MicroBatches]:
    return [
        MicroBatches(stream, seq_len=SEQ_LEN, micro_batch_size=micro_batch_size, rank=rank, size=size)
        for rank in range(size)
    ]


def samples(batches: Iterator[Batch], count: int) -> list[int]:
    """The ids of the samples in the next `count` micro-batches."""
    return [int(row[0]) // SEQ_LEN for inputs, _ in islice(batches, count) for row in inputs]


@given(
    size=st.integers(1, 4), micro_batch_size=st.integers(1, 3), accumulation=st.integers(1, 3), done=st.integers(0, 9)
)
def test_ranks_together_use_the_next_samples_of_the_order(
    stream: TokenStream, size: int, micro_batch_size: int, accumulation: int, done: int
) -> None:
    global_batch_size = size * micro_batch_size * accumulation
    consumed = done * global_batch_size
    found = [
        sample
        for rank in ranks_of(stream, size, micro_batch_size)
        for sample in samples(rank.shuffled(seed=5, consumed_samples=consumed), accumulation)
    ]
    expected = sample_ids(num_samples=25, seed=5, position=consumed, count=global_batch_size)
    assert sorted(found) == sorted(expected.tolist())


@given(size=st.integers(1, 3), micro_batch_size=st.integers(1, 3))
def test_evaluation_takes_the_first_samples_each_once(stream: TokenStream, size: int, micro_batch_size: int) -> None:
    ranks = ranks_of(stream, size, micro_batch_size)
    found = [sample for rank in ranks for sample in samples(rank.in_order(2), 99)]
    assert sorted(found) == list(range(2 * size * micro_batch_size))


def test_labels_follow_inputs(stream: TokenStream) -> None:
    [rank] = ranks_of(stream, 1, 3)
    inputs, labels = next(rank.shuffled(seed=1, consumed_samples=0))
    assert inputs.dtype == labels.dtype == torch.int64
    assert inputs.shape == labels.shape == (3, SEQ_LEN)
    assert torch.equal(labels, inputs + 1)


def test_a_data_set_shorter_than_a_sample_is_refused(stream: TokenStream) -> None:
    with pytest.raises(DataError, match=r"101 tokens, fewer than one sample of model\.seq_len=101"):
        MicroBatches(stream, seq_len=101, micro_batch_size=1, rank=0, size=1)
    assert MicroBatches(stream, seq_len=100, micro_batch_size=1, rank=0, size=1).num_samples == 1


def numbered(count: int) -> Iterator[Batch]:
    for index in range(count):
        yield torch.tensor(index), torch.tensor(index)


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_prefetching_changes_nothing(depth: int) -> None:
    batches = Prefetcher(numbered(9), depth)
    assert [int(inputs) for inputs, _ in batches] == list(range(9))
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
            yield torch.tensor(index), torch.tensor(index)

    batches = Prefetcher(counting(), 3)
    next(batches)
    batches.close()
    assert len(taken) <= 3 + 2, "one with the reader, three in the queue, one in the thread's hand"
