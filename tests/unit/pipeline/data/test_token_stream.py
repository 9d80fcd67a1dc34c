"""The stream over shards, against their plain concatenation."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.token_stream import TokenStream
from tests.data_sets import write_data_set

documents = st.lists(st.integers(0, 999), max_size=6)
datasets = st.lists(st.lists(documents, max_size=3), min_size=1, max_size=5)


@settings(max_examples=25)  # each writes files and syncs them
@given(datasets, st.data())
def test_reads_are_those_of_the_concatenation(shards: list[list[list[int]]], draw: st.DataObject) -> None:
    plain = [token for shard in shards for document in shard for token in document]
    with tempfile.TemporaryDirectory() as folder:
        stream = TokenStream(write_data_set(Path(folder), shards))
        assert len(stream) == len(plain)
        start = draw.draw(st.integers(0, len(plain)))
        end = draw.draw(st.integers(start, len(plain)))
        found = stream.read(start, end - start)
        assert found.tolist() == plain[start:end]


@settings(max_examples=15)
@given(st.integers(0, 40), st.integers(2, 7))
def test_windows_predict_each_token_once(num_tokens: int, length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stream = TokenStream(
            write_data_set(Path(folder), [[range(num_tokens // 2)], [range(num_tokens // 2, num_tokens)]])
        )
        windows = [stream.window(index, length).tolist() for index in range(stream.num_windows(length))]
    predicted = [token for window in windows for token in window[1:]]
    assert predicted == list(range(1, 1 + len(predicted)))
    assert num_tokens - 1 - len(predicted) < length - 1, "a window more would have fitted"


@pytest.mark.parametrize(("start", "count"), [(-1, 2), (5, 2), (7, 0), (0, 7)])
def test_what_is_not_in_the_stream_is_refused(tmp_path: Path, start: int, count: int) -> None:
    stream = TokenStream(write_data_set(tmp_path, [[[1, 2]], [[3, 4, 5, 6]]]))
    with pytest.raises(IndexError, match="are not in a stream of 6"):
        stream.read(start, count)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65536, np.uint16), (65537, np.int32)])
def test_ids_keep_their_dtype(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    stream = TokenStream(write_data_set(tmp_path, [[[vocab_size - 1]]], vocab_size=vocab_size))
    found = stream.read(0, 1)
    assert found.dtype == dtype
    assert found.tolist() == [vocab_size - 1]
