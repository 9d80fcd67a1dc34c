"""Windows over a stream: each token once an epoch, and cut elsewhere in each epoch."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.stream_windows import StreamWindows
from pipeline.data.token_stream import TokenStream
from pipeline.objectives.samples import Windows
from pipeline.shards import find_shards
from tests.data_sets import write_data_set

NUM_TOKENS = 101  # token i is the number i, so that a window shows where it was read
STARTS = {0, 40, 60}


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> TokenStream:
    folder = write_data_set(tmp_path_factory.mktemp("data"), [[range(40)], [range(40, 60), range(60, NUM_TOKENS)]])
    return TokenStream(find_shards(str(folder)))


def windows_of(stream: TokenStream, length: int, stride: int, *, finds_documents: bool = False) -> StreamWindows:
    return StreamWindows(stream, length=length, stride=stride, seed=3, finds_documents=finds_documents)


def epoch_of(windows: StreamWindows, epoch: int) -> Windows:
    ids = np.arange(windows.num_samples)
    return windows.read(epochs=np.full_like(ids, epoch), ids=ids, positions=ids)


@given(stride=st.integers(1, 60), overlap=st.integers(0, 1), epoch=st.integers(0, 50))
def test_an_epoch_reads_all_tokens_but_a_rest_shorter_than_a_window(
    stream: TokenStream, stride: int, overlap: int, epoch: int
) -> None:
    windows = windows_of(stream, stride + overlap, stride)
    assert windows.num_samples == (NUM_TOKENS - overlap) // stride
    tokens = epoch_of(windows, epoch).tokens
    assert tokens.shape == (windows.num_samples, stride + overlap)
    targets = tokens[:, overlap:].flatten().tolist()
    assert len(set(targets)) == len(targets) == windows.num_samples * stride
    first = int(tokens[0, 0])
    whole = [(first + offset) % NUM_TOKENS for offset in range(windows.num_samples * stride + overlap)]
    assert tokens.tolist() == [
        whole[number * stride : number * stride + stride + overlap] for number in range(windows.num_samples)
    ]


def test_each_epoch_begins_at_a_place_of_its_own(stream: TokenStream) -> None:
    windows = windows_of(stream, 21, 20)
    firsts = [int(epoch_of(windows, epoch).tokens[0, 0]) for epoch in range(200)]
    assert firsts[0] == 0
    assert set(firsts) == set(range(20)), "a place is missed by 199 draws with probability 20 * 0.95^199 = 0.0007"
    assert firsts == [int(epoch_of(windows_of(stream, 21, 20), epoch).tokens[0, 0]) for epoch in range(200)]


@given(stride=st.integers(1, 60), epoch=st.integers(0, 50))
def test_documents_begin_where_they_do(stream: TokenStream, stride: int, epoch: int) -> None:
    windows = epoch_of(windows_of(stream, stride + 1, stride, finds_documents=True), epoch)
    assert windows.starts_document is not None
    assert np.array_equal(windows.starts_document, np.isin(windows.tokens, list(STARTS)))


def test_a_stream_shorter_than_a_window_has_none(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [[range(4)]])
    stream = TokenStream(find_shards(str(folder)))
    assert windows_of(stream, 5, 4).num_samples == 0
    assert windows_of(stream, 4, 3).num_samples == 1
