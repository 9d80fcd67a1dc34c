"""Documents whose ends were written but not counted, as Megatron's tool did: found, explained, undone."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.data_sets.pair import open_pair
from data_prep.data_sets.repair import find_shift, repair_data_set, repair_pair
from data_prep.data_sets.verify import verify
from data_prep.data_sets.verify_pair import verify_pair
from data_prep.errors import DataError
from data_prep.format import DTYPE_CODES, HEADER, MAGIC, open_shard, write_index
from data_prep.manifest import Source, load_manifest, make_manifest, save_manifest
from tests.data_sets import read_documents, run_data, write_data_set

EOD = 2
Sentences = Sequence[Sequence[int]]  # of a document

sentences = st.lists(st.lists(st.integers(3, 9), min_size=1, max_size=4), max_size=3)
sentences_with_ends = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=3)


def write_pair(prefix: Path, documents: Sequence[Sentences], *, counted: bool) -> Path:
    """A pair of documents that end in EOD; like Megatron's, those without tokens get none."""
    lengths, boundaries, ids = [], [0], []
    for document in documents:
        lengths += [len(sentence) for sentence in document]
        ids += [token for sentence in document for token in sentence] + ([EOD] if document else [])
        if counted and document:
            lengths[-1] += 1
        boundaries.append(len(lengths))
    places = 2 * (np.cumsum(lengths, dtype="<i8") - lengths)
    content = HEADER.pack(MAGIC, 1, 8, len(lengths), len(boundaries)) + np.array(lengths, "<i4").tobytes()
    content += places.astype("<i8").tobytes() + np.array(boundaries, "<i8").tobytes()
    prefix.with_name(f"{prefix.name}.idx").write_bytes(content)
    prefix.with_name(f"{prefix.name}.bin").write_bytes(np.array(ids, "<u2").tobytes())
    return prefix


@given(st.lists(sentences, max_size=8))
def test_the_repaired_index_is_that_of_a_right_tool(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    shifted = write_pair(folder / "shifted", documents, counted=False)
    right = write_pair(folder / "right", documents, counted=True)
    num_filled = sum(map(bool, documents))
    assert find_shift(*open_pair(right), eod_id=None) is None
    assert find_shift(*open_pair(right), eod_id=EOD) is None
    if num_filled == 0:
        verify_pair(shifted)
        return
    with pytest.raises(DataError, match=f"one for each of its {num_filled} documents, and the token at each true"):
        verify_pair(shifted, eod_id=EOD)
    old = (folder / "shifted.idx").read_bytes()
    shift = repair_pair(shifted, eod_id=EOD)
    assert (shift.num_documents, shift.eod_id) == (num_filled, EOD)
    assert (folder / "shifted.idx").read_bytes() == (folder / "right.idx").read_bytes()
    assert (folder / "shifted.idx.shifted").read_bytes() == old
    report = verify_pair(shifted, eod_id=EOD, vocab_size=10)
    assert (report.num_documents, report.ends_with) == (len(documents), EOD)


@given(st.lists(sentences_with_ends, min_size=2, max_size=8), st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_a_bin_that_grew_is_not_taken_for_shifted(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[list[int]]], more: list[int]
) -> None:
    prefix = write_pair(tmp_path_factory.mktemp("pair") / "pair", documents, counted=True)
    with prefix.with_name("pair.bin").open("ab") as file:
        file.write(np.array(more, "<u2").tobytes())
    assert find_shift(*open_pair(prefix), eod_id=EOD) is None
    assert find_shift(*open_pair(prefix), eod_id=None) is None


@pytest.mark.parametrize(
    ("documents", "found"),
    [
        ([[[5, 6]], [[7], [8]], [], [[9]]], True),
        ([[[5, 6]], [[7, 8]]], False),  # two could be chance
        ([[[5, 6]], [[7], [6, 9]], [[3, 6, 9, 9]]], False),  # all stated ends are 6, so that may be the end
    ],
)
def test_the_end_is_found_where_it_is_not_given(tmp_path: Path, documents: list[Sentences], found: bool) -> None:
    prefix = write_pair(tmp_path / "pair", documents, counted=False)
    with pytest.raises(DataError, match="token at each true end is 2" if found else "give --eod-id"):
        verify_pair(prefix)
    with pytest.raises(DataError, match="token at each true end is 2"):
        verify_pair(prefix, eod_id=EOD)


def test_another_token_at_one_end_is_no_shift(tmp_path: Path) -> None:
    prefix = write_pair(tmp_path / "pair", [[[5]], [[6, 7]], [[8]]], counted=False)
    path = tmp_path / "pair.bin"
    path.write_bytes(path.read_bytes()[:-2] + b"\3\0")
    with pytest.raises(DataError, match="is not shifted: there is nothing that --repair could do"):
        repair_pair(prefix)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pair.bin", "pair.idx"]


def shifted_data_set(folder: Path, num_sources: int = 1) -> Path:
    """A data set of two shards whose first is shifted, and a manifest that counts as its .idx does."""
    write_data_set(folder, [[[5, EOD], [6, 7, EOD]], [[8, EOD]]], eod_id=EOD)
    manifest = load_manifest(folder)
    with (folder / "shard_00000.idx").open("wb") as file:
        write_index(file, lengths=np.array([1, 2], np.int32), document_indices=np.arange(3), dtype=DTYPE_CODES[8])
    from dataclasses import replace

    first = replace(manifest.shards[0], num_tokens=3, bin_bytes=6)
    sources = [Source(name=f"s{n}", num_documents=3, num_tokens=5, num_text_bytes=9) for n in range(num_sources)]
    made = make_manifest(
        vocab_size=manifest.vocab_size,
        dtype=manifest.dtype,
        eod_id=EOD,
        tokenizer=manifest.tokenizer,
        sources=sources,
        shards=[first, manifest.shards[1]],
        preparations=manifest.preparations,
    )
    save_manifest(made, folder)
    return folder


def test_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shifted_data_set(tmp_path / "data")
    with pytest.raises(DataError, match=r"shard_00000: the documents are shifted: .* --repair"):
        verify(folder)
    assert run_data("verify", folder, "--repair", "--json") == 0
    assert json.loads(capsys.readouterr().out)["repaired_tokens"] == 2
    assert read_documents(folder) == [[5, EOD], [6, 7, EOD], [8, EOD]]
    assert verify(folder).num_tokens == 7
    with pytest.raises(DataError, match=r"no shard of .* is shifted"):
        repair_data_set(folder)


def test_a_killed_repair_goes_on(tmp_path: Path) -> None:
    folder = shifted_data_set(tmp_path / "data")
    repair_pair(folder / "shard_00000", eod_id=EOD)
    with pytest.raises(DataError, match="damaged"):
        verify(folder)
    repair_data_set(folder)
    verify(folder)


def test_sources_that_cannot_be_told(tmp_path: Path) -> None:
    folder = shifted_data_set(tmp_path / "data", num_sources=2)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError, match="whose they are cannot be told"):
        repair_data_set(folder)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


def test_the_command_on_a_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = write_pair(tmp_path / "pair", [[[5], [6]], [[7, 8]]], counted=False)
    assert run_data("verify", prefix, "--repair", "--eod-id", EOD, "--json") == 0
    assert json.loads(capsys.readouterr().out)["repaired_documents"] == 2
    assert run_data("verify", tmp_path / "pair.idx", "--eod-id", EOD) == 0
    with pytest.raises(DataError, match="ids from 2 to 8 are outside the vocabulary of 8"):
        run_data("verify", prefix, "--vocab-size", 8)
    with pytest.raises(DataError, match="not every document ends with the end-of-document id 3"):
        run_data("verify", prefix, "--eod-id", 3)
    with pytest.raises(DataError, match="--deep needs the manifest"):
        run_data("verify", prefix, "--deep")


@settings(max_examples=100)
@given(st.integers(0, 2**20), st.integers(0, 7))
def test_a_flipped_index_never_ends_in_a_crash(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    prefix = write_pair(tmp_path_factory.mktemp("pair") / "pair", [[[5], [6]], [], [[7, 8], [9]]], counted=True)
    path = prefix.with_name("pair.idx")
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        verify_pair(prefix)
    except DataError:
        return
    index = open_shard(prefix.parent, "pair")[1]  # another cut of the sequences into documents is a pair, too
    assert index.document_indices.tolist() != [0, 2, 2, 4]
    assert struct.calcsize("<q") * len(index.document_indices) == 32
