"""Documents by number and in sweeps, and what is refused on the way."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.data_sets.data_set import DataSet
from data_prep.errors import DataError
from data_prep.manifest import load_manifest, save_manifest
from data_prep.ragged import gather
from tests.data_sets import read_documents, read_names, read_sentences, write_data_set

documents = st.lists(st.integers(0, 999), max_size=6)
shards = st.lists(st.lists(documents, max_size=5), min_size=1, max_size=4)


@settings(max_examples=25)  # each writes files and syncs them
@given(shards, st.integers(2, 20))
def test_numbers_and_sweeps_give_the_documents(
    tmp_path_factory: pytest.TempPathFactory, written: list[list[list[int]]], num_bytes: int
) -> None:
    folder = write_data_set(tmp_path_factory.mktemp("data") / "a", written, metadata=True)
    plain = [document for shard in written for document in shard]
    assert read_documents(folder) == plain
    assert read_names(folder) == [f"a {number}" for number in range(len(plain))]
    swept, names, numbers = [], [], []
    for batch in DataSet(folder).batches(num_bytes=num_bytes, metadata=True):
        assert batch.metadata is not None
        assert batch.tokens.nbytes <= num_bytes or len(batch.lengths) == 1
        numbers.append((batch.first, len(swept)))
        swept += [part.tolist() for part in np.split(batch.tokens, np.cumsum(batch.lengths)[:-1])]
        names += batch.metadata.content.tobytes().splitlines()
    assert swept == plain
    assert len(names) == len(plain)
    assert all(first == found for first, found in numbers)


sentences = st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=4), max_size=4)


@settings(max_examples=25)  # each writes files and syncs them
@given(st.lists(st.lists(sentences, max_size=5), min_size=1, max_size=4), st.integers(2, 20))
def test_sentences_and_their_documents(
    tmp_path_factory: pytest.TempPathFactory, written: list[list[list[list[int]]]], num_bytes: int
) -> None:
    folder = write_data_set(tmp_path_factory.mktemp("data") / "a", written, split_sentences="en")
    plain = [document for shard in written for document in shard]
    assert read_sentences(folder) == plain
    assert read_documents(folder) == [[token for sentence in document for token in sentence] for document in plain]
    swept = []
    for batch in DataSet(folder).batches(num_bytes=num_bytes):
        assert batch.tokens.nbytes <= num_bytes or len(batch.lengths) == 1
        assert batch.sequences is not None
        assert batch.lengths.tolist() == batch.sequences.document_lengths.tolist()
        pieces = [part.tolist() for part in np.split(batch.tokens, np.cumsum(batch.sequences.lengths)[:-1])]
        for count in batch.sequences.counts.tolist():
            swept.append(pieces[:count])
            pieces = pieces[count:]
    assert swept == plain


def test_sentences_that_the_manifest_does_not_speak_of(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [[[[1, 2], [3]]]], split_sentences="en")
    manifest = load_manifest(folder)
    [made] = manifest.preparations
    changed = dataclasses.replace(manifest, preparations=(dataclasses.replace(made, sentences=None),))
    save_manifest(dataclasses.replace(changed, checksum=changed.expected_checksum()), folder)
    for use in (lambda: DataSet(folder).document(0), lambda: list(DataSet(folder).batches())):
        with pytest.raises(DataError, match="it has documents of several sequences"):
            use()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.data())
def test_gather_is_that_of_rows(lengths: list[int], data: st.DataObject) -> None:
    values = np.arange(sum(lengths), dtype=np.uint16)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=20)), np.int64)
    starts = np.cumsum(lengths) - lengths
    plain = [value for row in rows for value in values[starts[row] : starts[row] + lengths[row]]]
    assert gather(values, starts[rows], np.array(lengths)[rows]).tolist() == plain


def test_gather_of_rows_longer_than_a_block() -> None:
    values = np.arange(5_000_000, dtype=np.int32)
    starts, lengths = np.array([3_000_000, 0, 10, 4_000_000]), np.array([1_500_000, 1_048_576, 7, 600_000])
    plain = np.concatenate([values[start : start + length] for start, length in zip(starts, lengths, strict=True)])
    assert np.array_equal(gather(values, starts, lengths), plain)


@pytest.mark.parametrize("number", [-1, 3, 2**70])
def test_numbers_out_of_range_name_the_range(tmp_path: Path, number: int) -> None:
    data_set = DataSet(write_data_set(tmp_path / "data", [[[1], [2]], [[3]]]))
    with pytest.raises(DataError, match=rf"has no document {number}: it holds documents 0 to 2"):
        data_set.document(number)


def test_a_changed_manifest_is_not_worked_with(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [[[1]]])
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"text"', '"best"'))
    with pytest.raises(DataError, match="its checksum does not follow"):
        DataSet(folder)


@pytest.mark.parametrize("name", ["shard_00000.bin", "shard_00000.idx", "shard_00000.metadata.jsonl.zst"])
def test_a_sweep_compares_checksums(tmp_path: Path, name: str) -> None:
    folder = write_data_set(tmp_path / "data", [[[1, 2], [3]]], metadata=True)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=r"shard_00000|contradicts itself"):
        list(DataSet(folder).batches(metadata=True))
