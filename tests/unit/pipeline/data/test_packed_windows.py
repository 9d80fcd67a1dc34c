"""Packed windows: whole documents, each once an epoch, and filled up with nothing that counts."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.data_sets.packing import pack
from data_prep.packing import packed_path, record_path
from pipeline.data.packed_windows import PackedWindows
from pipeline.data.token_stream import Reading, TokenStream
from pipeline.errors import DataError
from pipeline.objectives.causal import Causal
from pipeline.objectives.samples import IGNORED, Windows
from pipeline.shards import find_shards
from tests.data_sets import write_data_set

EOD = 7
SEQ_LEN = 8
SHARDS = [
    [[10, 11, 12, EOD], [20, EOD], [], [30, 31, 32, 33, EOD]],
    [],
    [[*range(40, 60), EOD], [EOD]],
    [[], []],
    [[70, 71, EOD]],
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_data_set(tmp_path / "data", SHARDS, eod_id=EOD)
    pack(folder, seq_len=SEQ_LEN)
    return folder


def opened(path: Path | str, *, reading: Reading = "mmap") -> PackedWindows:
    return PackedWindows(TokenStream(find_shards(str(path)), reading=reading), seq_len=SEQ_LEN)


def read(windows: PackedWindows, *ids: int) -> Windows:
    numbers = np.array(ids, np.int64)
    return windows.read(epochs=numbers * 0, ids=numbers, positions=numbers + 100)


def pieces(found: Windows) -> list[list[int]]:
    """The tokens of each piece."""
    assert found.starts_document is not None
    result = []
    for tokens, length, starts in zip(found.tokens, found.lengths, found.starts_document, strict=True):
        places = np.flatnonzero(starts).tolist()
        assert places[0] == 0
        assert not starts[length:].any()
        result += [tokens[one:other].tolist() for one, other in zip(places, [*places[1:], length], strict=True)]
    return result


@pytest.mark.parametrize("reading", ["mmap", "pread"])
def test_an_epoch_holds_each_document_once(folder: Path, reading: Reading) -> None:
    windows = opened(folder, reading=reading)
    found = read(windows, *range(windows.num_samples))
    assert found.tokens.shape == (windows.num_samples, SEQ_LEN + 1)
    assert (found.tokens.dtype, found.lengths.dtype) == (np.uint16, np.int64)
    whole = [document for shard in SHARDS for document in shard if 0 < len(document) <= SEQ_LEN + 1]
    long = [[*range(40, 49)], [*range(48, 57)], [56, 57, 58, 59, EOD]]
    assert sorted(pieces(found)) == sorted([*whole, *long])
    filling = np.arange(SEQ_LEN + 1) >= found.lengths[:, None]
    assert (found.tokens[filling] == EOD).all()


def test_any_windows_in_any_order(folder: Path) -> None:
    windows = opened(folder)
    all_of_them = read(windows, *range(windows.num_samples))
    for ids in ([3, 0, 3], [windows.num_samples - 1], []):
        found = read(windows, *ids)
        assert found.tokens.tolist() == all_of_them.tokens[ids].tolist()
        assert found.lengths.tolist() == all_of_them.lengths[ids].tolist()


def test_every_token_but_the_first_of_a_document_is_a_label_once(folder: Path) -> None:
    windows = opened(folder)
    ids = np.arange(windows.num_samples)
    batch = Causal(seq_len=SEQ_LEN, within_documents=True).batch(read(windows, *ids), ids)
    labels = batch["labels"][batch["labels"] != IGNORED]
    expected = [token for shard in SHARDS for document in shard for token in document[1:]]
    assert sorted(labels.tolist()) == sorted(expected)


def test_one_shard_of_a_data_set_and_several_data_sets(folder: Path, tmp_path: Path) -> None:
    one = opened(folder / "shard_00002")
    assert sorted(pieces(read(one, *range(one.num_samples))))[-1] == [56, 57, 58, 59, EOD]
    other = write_data_set(tmp_path / "data2", [[[5, EOD]]], eod_id=EOD)
    with pytest.raises(
        DataError, match=r"data2 is not packed for a sequence length of 8.*Run `pretrain data pack .*data2"
    ):
        opened(tmp_path / "data*")
    pack(other, seq_len=SEQ_LEN)
    both = opened(tmp_path / "data*")
    assert both.num_samples == opened(folder).num_samples + 1
    assert pieces(read(both, both.num_samples - 1)) == [[5, EOD]]


def test_a_data_set_without_end_of_document_is_filled_with_zeros(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path, [[[5, 6]]])
    pack(folder, seq_len=SEQ_LEN)
    found = read(opened(folder), 0)
    assert found.tokens.tolist() == [[5, 6, *[0] * 7]]
    assert found.lengths.tolist() == [2]


def test_a_packing_that_does_not_fit_is_refused(folder: Path) -> None:
    path = packed_path(folder, "shard_00002", SEQ_LEN)
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(DataError, match=r"shard_00002\.packed_8 has \d+ bytes, packed_8\.json says"):
        opened(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"shard_00002\.packed_8 is missing, .*Run `pretrain data pack"):
        opened(folder)
    path.write_bytes(content)
    record = record_path(folder, SEQ_LEN)
    record.write_text(record.read_text().replace("shard_00002", "shard_00012"))
    with pytest.raises(DataError, match=r"shard_00012\.packed_8 is missing"):
        opened(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"data\.packing=true cannot be used with .*: it has no manifest\.json"):
        opened(folder)
