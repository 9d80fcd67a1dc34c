"""The bytes of a packing: as the table in its module says, and nothing that was changed goes unnoticed."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.data_sets.packing import pack, pack_documents
from data_prep.errors import DataError
from data_prep.manifest import read_manifest
from data_prep.packing import packed_path, read_packed_shard, read_packing, read_windows, record_path, window_length
from pipeline.objectives import causal
from tests.data_sets import write_data_set

NAME = "shard_00000"
SEQ_LEN = 7
DOCUMENTS = [range(5), range(0), range(3), range(11)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_data_set(tmp_path / "data", [DOCUMENTS])
    pack(folder, seq_len=SEQ_LEN)
    return folder


def test_the_worked_total(folder: Path) -> None:
    content = packed_path(folder, NAME, SEQ_LEN).read_bytes()
    assert len(content) == 104 + 24 + 32 + 16 == 176
    assert content[:8] == b"PACKED\0\0"
    assert struct.unpack("<7Q", content[8:64]) == (1, 7, 3, 4, 20, 1, 1)
    assert content[64:80].hex() == read_manifest(folder).shards[0].idx_checksum
    assert np.frombuffer(content[96:128], "<i8").tolist() == [0, 1, 3, 4]
    assert np.frombuffer(content[128:160], "<i8").tolist() == [8, 0, 5, 15]
    assert np.frombuffer(content[160:], "<i4").tolist() == [8, 5, 3, 4]


def test_what_is_read_is_what_was_written(folder: Path) -> None:
    windows = read_windows(folder, NAME, SEQ_LEN)
    assert windows.first_pieces.tolist() == [0, 1, 3, 4]
    assert windows.starts.tolist() == [8, 0, 5, 15]
    assert windows.lengths.tolist() == [8, 5, 3, 4]
    shard = read_packed_shard(folder, NAME, SEQ_LEN, deep=True)
    packing = read_packing(folder, SEQ_LEN, read_manifest(folder))
    assert packing.shards == (shard,)
    assert (packing.num_windows, packing.num_cut, packing.num_cut_by_concatenation) == (3, 1, 1)
    assert packing.fill == 20 / 24


def test_a_window_is_what_the_causal_objective_reads() -> None:
    assert window_length(SEQ_LEN) == causal.window_length(SEQ_LEN)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(bit=st.integers(0, 176 * 8 - 1))
def test_any_bit_that_flips_is_noticed(folder: Path, bit: int) -> None:
    path = packed_path(folder, NAME, SEQ_LEN)
    content = path.read_bytes()
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    with pytest.raises(DataError, match=r"shard_00000\.packed_7 .*Run `pretrain data pack .* --seq-len 7` again"):
        read_packed_shard(folder, NAME, SEQ_LEN, deep=True)
    path.write_bytes(content)


@pytest.mark.parametrize("length", [0, 10, 95, 96, 175, 177, 300])
def test_a_file_of_another_size_is_refused_without_reading_it(folder: Path, length: int) -> None:
    path = packed_path(folder, NAME, SEQ_LEN)
    path.write_bytes((path.read_bytes() + bytes(200))[:length])
    with pytest.raises(DataError, match=r"packed_7 (has \d+ bytes, its beginning says 176|does not start with)"):
        read_windows(folder, NAME, SEQ_LEN)


def test_what_is_not_there_is_named(folder: Path) -> None:
    manifest = read_manifest(folder)
    with pytest.raises(DataError, match=r"not packed for a sequence length of 8: there is no packed_8\.json\. Run"):
        read_packing(folder, 8, manifest)
    with pytest.raises(DataError, match=r"packed_8 cannot be read: No such file.* --seq-len 8` again"):
        read_packed_shard(folder, NAME, 8)
    record_path(folder, 8).write_bytes(record_path(folder, SEQ_LEN).read_bytes())
    with pytest.raises(DataError, match="packs other data"):
        read_packing(folder, 8, manifest)
    record_path(folder, 8).write_text("{}")
    with pytest.raises(DataError, match=r"missing or unknown.* Run `pretrain data pack"):
        read_packing(folder, 8, manifest)
    other = read_manifest(write_data_set(folder / "other", [[range(4)]]))
    with pytest.raises(DataError, match=r"packed_7\.json packs other data"):
        read_packing(folder, SEQ_LEN, other)


def test_a_shard_of_no_tokens(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path, [[], [[], []]])
    packing = pack(folder, seq_len=SEQ_LEN)
    assert (packing.num_windows, packing.fill) == (0, None)
    assert read_windows(folder, "shard_00001", SEQ_LEN).first_pieces.tolist() == [0]


@given(st.lists(st.integers(0, 40)), st.integers(1, 12))
def test_every_token_but_the_first_of_a_document_is_predicted_once(lengths: list[int], seq_len: int) -> None:
    counts = np.array(lengths, np.int64)
    starts = np.cumsum(counts) - counts
    windows, num_cut = pack_documents(starts, counts, seq_len)
    predicted, read = [], []
    sizes = np.add.reduceat(np.append(windows.lengths, 0), windows.first_pieces[:-1]) if len(windows.lengths) else []
    assert all(0 < size <= seq_len + 1 for size in sizes)
    for start, length in zip(windows.starts.tolist(), windows.lengths.tolist(), strict=True):
        predicted += range(start + 1, start + length)
        read += range(start, start + length)
    first = {int(start) for start, count in zip(starts, counts, strict=True) if count}
    assert sorted(predicted) == sorted(set(range(sum(lengths))) - first)
    assert set(read) == set(range(sum(lengths)))
    assert num_cut == sum(length > seq_len + 1 for length in lengths)
    for first_piece, end in zip(windows.first_pieces, windows.first_pieces[1:], strict=False):
        assert (np.diff(windows.starts[first_piece:end]) > 0).all()
    whole = [piece for piece in zip(starts.tolist(), lengths, strict=True) if 0 < piece[1] <= seq_len + 1]
    assert set(whole) <= set(zip(windows.starts.tolist(), windows.lengths.tolist(), strict=True))
