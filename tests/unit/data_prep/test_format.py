"""The .bin/.idx bytes, and what is refused when they are read."""

import contextlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.format import bin_path, idx_bytes, idx_path, open_shard, read_index, token_dtype, write_index
from data_prep.writer import ShardWriter


def write_shard(folder: Path, documents: list[list[int]], *, vocab_size: int = 1_000) -> None:
    with ShardWriter(folder, "shard", token_dtype(vocab_size)) as writer:
        for tokens in documents:
            writer.append(np.array(tokens, dtype=np.int32))
        writer.commit()


def test_the_worked_example_of_the_format() -> None:
    written = io.BytesIO()
    lengths, dtype = np.array([5, 0, 7], np.int32), np.dtype(np.uint16)
    write_index(written, lengths=lengths, document_indices=np.arange(4), dtype=dtype)
    expected = b"MMIDIDX\0\0" + struct.pack("<QBQQ3i3q4q", 1, 8, 3, 4, 5, 0, 7, 0, 10, 10, 0, 1, 2, 3)
    assert written.getvalue() == expected
    assert len(expected) == idx_bytes(3, 3) == 102


def test_the_worked_example_with_sentences() -> None:
    written = io.BytesIO()
    lengths, boundaries = np.array([3, 2, 7], np.int32), np.array([0, 2, 3])
    write_index(written, lengths=lengths, document_indices=boundaries, dtype=np.dtype(np.uint16))
    expected = b"MMIDIDX\0\0" + struct.pack("<QBQQ3i3q3q", 1, 8, 3, 3, 3, 2, 7, 0, 6, 10, 0, 2, 3)
    assert written.getvalue() == expected
    assert len(expected) == idx_bytes(3, 2) == 94


@given(st.lists(st.lists(st.lists(st.integers(0, 99), max_size=3), max_size=4), max_size=8), st.data())
def test_sentences_come_back(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[list[int]]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    with ShardWriter(folder, "shard", token_dtype(100)) as writer:
        for some in (documents[:3], documents[3:]):
            sentences = [one for document in some for one in document]
            tokens = np.array([token for one in sentences for token in one], np.int64)
            counts = np.array([len(document) for document in some], np.int64)
            writer.append_batch(tokens, np.array([len(one) for one in sentences], np.int64), counts)
        shard = writer.commit()
    assert (shard.num_documents, shard.num_sequences) == (len(documents), sum(map(len, documents)))
    assert idx_path(folder, "shard").stat().st_size == idx_bytes(shard.num_sequences, shard.num_documents)
    _, index = open_shard(folder, "shard")
    assert index.num_documents == len(documents)
    first = data.draw(st.integers(0, len(documents)))
    last = data.draw(st.integers(first, len(documents)))
    lengths, counts = index.documents(first, last)
    assert lengths.tolist() == [len(one) for document in documents[first:last] for one in document]
    assert counts.tolist() == [len(document) for document in documents[first:last]]


@pytest.mark.parametrize(("lengths", "boundaries"), [([1, 1, 1], [0, 2, 1, 3]), ([1, -1, 1], [0, 1, 2, 3])])
def test_documents_that_contradict_their_index_are_refused(
    tmp_path: Path, lengths: list[int], boundaries: list[int]
) -> None:
    with idx_path(tmp_path, "shard").open("wb") as file:
        indices = np.array(boundaries)
        write_index(file, lengths=np.array(lengths, np.int32), document_indices=indices, dtype=np.dtype(np.uint16))
    with pytest.raises(DataError, match="documents 0 to 2 have negative lengths, or begin before"):
        read_index(idx_path(tmp_path, "shard")).documents(0, 3)


@pytest.mark.parametrize(("vocab_size", "name"), [(2, "uint16"), (65_536, "uint16"), (65_537, "int32")])
def test_ids_take_two_bytes_when_they_fit(vocab_size: int, name: str) -> None:
    assert token_dtype(vocab_size).name == name
    assert np.iinfo(token_dtype(vocab_size)).max >= vocab_size - 1


@given(documents=st.lists(st.lists(st.integers(0, 99_999), max_size=20), max_size=20))
def test_documents_come_back(tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]]) -> None:
    folder = tmp_path_factory.mktemp("shard")
    write_shard(folder, documents, vocab_size=100_000)
    tokens, index = open_shard(folder, "shard")
    assert index.lengths.tolist() == list(map(len, documents))
    assert index.document_indices.tolist() == list(range(len(documents) + 1))
    places = index.pointers // index.dtype.itemsize
    found = [tokens[place : place + length].tolist() for place, length in zip(places, index.lengths, strict=True)]
    assert found == documents


def change(path: Path, at: int, to: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(to)] = to
    path.write_bytes(content)


def test_damaged_pairs_are_refused_when_opened(tmp_path: Path) -> None:
    write_shard(tmp_path, [[1, 2, 3], [4]])
    bin_file, idx_file = bin_path(tmp_path, "shard"), idx_path(tmp_path, "shard")
    whole_bin, whole_idx = bin_file.read_bytes(), idx_file.read_bytes()

    for content in (whole_bin[:-1], whole_bin + b"\0\0", b""):
        bin_file.write_bytes(content)
        with pytest.raises(DataError, match=rf"shard.bin has {len(content)} bytes, but its .idx describes 8"):
            open_shard(tmp_path, "shard")
    bin_file.unlink()
    with pytest.raises(DataError, match=r"shard\.bin is missing"):
        open_shard(tmp_path, "shard")
    bin_file.write_bytes(whole_bin)

    for content in (whole_idx[:-1], whole_idx + b"\0"):
        idx_file.write_bytes(content)
        with pytest.raises(DataError, match="was cut or overwritten"):
            open_shard(tmp_path, "shard")
    for content in (b"", whole_idx[:20], b"x" * 100):
        idx_file.write_bytes(content)
        with pytest.raises(DataError, match="is not the index of a shard"):
            read_index(idx_file)
    for at, to in ((9, b"\x02"), (17, b"\x07")):
        idx_file.write_bytes(whole_idx)
        change(idx_file, at, to)
        with pytest.raises(DataError, match="known are version 1"):
            read_index(idx_file)
    idx_file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_index(idx_file)


def test_any_flip_at_the_ends_of_an_index_is_refused_when_opened(tmp_path: Path) -> None:
    write_shard(tmp_path, [[1, 2, 3], [4], [5, 6], [7, 8], [9]])
    path = idx_path(tmp_path, "shard")
    whole = path.read_bytes()
    places = {"header": 0, "last length": 34 + 4 * 4, "first place": 54, "last place": 86, "boundary": 94, "last": 134}
    read = {at for name, start in places.items() for at in range(start, start + (34 if name == "header" else 4))}
    for at in range(len(whole)):
        for bit in range(8):
            change(path, at, bytes([whole[at] ^ 1 << bit]))
            if at in read:
                with pytest.raises(DataError):
                    open_shard(tmp_path, "shard")
            else:  # as it is too long to be read at once, `verify` finds it
                with contextlib.suppress(DataError):
                    open_shard(tmp_path, "shard")
            change(path, at, whole[at : at + 1])


@pytest.mark.parametrize(
    ("lengths", "places", "boundaries"),
    [
        ([3, -1], [0, 10], [0, 1, 2]),
        ([3, 5], [0, -2], [0, 1, 2]),
        ([3, 4], [0, 1], [0, 1, 2]),
        ([3, 1], [0, 6], [0, 1, 2**62]),
        ([3, 1], [0, 6], []),
    ],
)
def test_an_index_of_impossible_numbers(
    tmp_path: Path, lengths: list[int], places: list[int], boundaries: list[int]
) -> None:
    write_shard(tmp_path, [[1, 2, 3], [4]])
    content = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, len(lengths), len(boundaries))
    content += struct.pack(f"<{len(lengths)}i{len(places)}q{len(boundaries)}q", *lengths, *places, *boundaries)
    idx_path(tmp_path, "shard").write_bytes(content)
    with pytest.raises(DataError, match="contradicts itself"):
        open_shard(tmp_path, "shard")


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path, "shard", token_dtype(10)) as writer:
            writer.append(np.array([1]))
            assert len(list(tmp_path.iterdir())) == 1
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert list(tmp_path.iterdir()) == []
