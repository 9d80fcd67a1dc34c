"""The token stream: any stretch of it is what a plain list of all documents holds, however it is read."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.token_stream import Reading, TokenStream
from pipeline.errors import DataError
from pipeline.shards import find_shards
from tests.data_sets import write_data_set

SHARDS = [[range(5), range(5, 6), range(6, 20)], [], [range(20, 41)], [range(41, 43), range(43, 50)]]
TOKENS = list(range(50))
STARTS = [0, 5, 6, 20, 41, 43]


@pytest.fixture(scope="module", params=["mmap", "pread", "sentences"])
def stream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenStream:
    folder = tmp_path_factory.mktemp("data")
    if request.param == "sentences":
        sentences = [[_sentences(document) for document in shard] for shard in SHARDS]
        return TokenStream(find_shards(str(write_data_set(folder, sentences, split_sentences="en"))))
    return TokenStream(find_shards(str(write_data_set(folder, SHARDS))), reading=request.param)


def _sentences(document: range) -> list[range]:
    """A document in two or more parts, if it has more than one token."""
    return [document[:1], *(document[at : at + 3] for at in range(1, len(document), 3))]


@given(st.integers(0, 50), st.integers(0, 50))
def test_reads_any_stretch(stream: TokenStream, start: int, end: int) -> None:
    start, end = sorted((start, end))
    found = stream.read(start, end - start)
    assert found.tolist() == TOKENS[start:end]
    assert found.dtype == np.uint16


@given(st.lists(st.integers(0, 49), max_size=5), st.integers(1, 120))
def test_gathers_stretches_and_goes_on_at_the_beginning(stream: TokenStream, starts: list[int], length: int) -> None:
    found = stream.gather(np.array(starts, np.int64), length)
    assert found.shape == (len(starts), length)
    assert found.tolist() == [[(start + offset) % 50 for offset in range(length)] for start in starts]


@given(st.integers(0, 49))
def test_finds_the_document_of_a_token(stream: TokenStream, position: int) -> None:
    number = stream.document_at(position)
    assert number == sum(start <= position for start in STARTS) - 1
    document = stream.document(number)
    assert document.start == STARTS[number]
    assert document.sequence_lengths.sum() == [*STARTS, 50][number + 1] - STARTS[number]
    assert len(document.sequence_places) == len(document.sequence_lengths)


@given(st.integers(0, 49), st.integers(0, 110))
def test_finds_where_documents_start(stream: TokenStream, start: int, count: int) -> None:
    found = stream.document_starts(start, count)
    assert found.tolist() == [place for place in range(start, start + count) if place % 50 in STARTS]


def test_counts(stream: TokenStream) -> None:
    assert (len(stream), stream.num_documents) == (50, 6)
    with pytest.raises(IndexError):
        stream.read(49, 2)


@pytest.mark.parametrize("reading", ["mmap", "pread"])
def test_wide_ids(tmp_path: Path, reading: Reading) -> None:
    folder = write_data_set(tmp_path / "wide", [[[99_999, 0]]], vocab_size=100_000)
    found = TokenStream(find_shards(str(folder)), reading=reading).read(0, 2)
    assert (found.tolist(), found.dtype) == ([99_999, 0], np.int32)


def test_a_file_that_was_cut_since_is_named(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", SHARDS)
    stream = TokenStream(find_shards(str(folder)), reading="pread")
    (folder / "shard_00000.bin").write_bytes(b"\0\0")
    with pytest.raises(DataError, match=r"shard_00000\.bin ends at byte 2: it was cut"):
        stream.read(0, 5)


def test_an_empty_document_beside_one_of_several_sentences_hides_no_start(tmp_path: Path) -> None:
    """As many documents as sequences, and yet no document is one sequence."""
    folder = write_data_set(tmp_path / "data", [[[[1, 2], [3, 4]], []], [[[5]], [], [[6], [7]]]], split_sentences="en")
    stream = TokenStream(find_shards(str(folder)))
    assert sorted(set(stream.document_starts(0, 7).tolist())) == [0, 4, 5]
    assert [stream.document_at(position) for position in (0, 3, 4, 5)] == [0, 0, 2, 4]


def test_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [[[number]] for number in range(600)])
    for reading in ("mmap", "pread"):
        stream = TokenStream(find_shards(str(folder)), reading=reading)  # type: ignore[arg-type]
        assert stream.gather(np.arange(600)[::-1].copy(), 1)[:, 0].tolist() == list(range(600))[::-1]
