"""What a path in the run config can name, and what is refused before anything is read."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep.manifest import FILE_NAME as MANIFEST
from pipeline.errors import DataError
from pipeline.shards import find_shards
from tests.data_sets import write_data_set

SHARDS = [[range(5), range(7)], [range(3)]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "data", SHARDS, eod_id=2)


def foreign(data: Path) -> Path:
    """The pairs of another program: no manifest."""
    (data / MANIFEST).unlink()
    return data


def test_a_folder_with_a_manifest(data: Path) -> None:
    found = find_shards(str(data))
    assert [shard.num_tokens for shard in found.shards] == [12, 3]
    assert (found.num_tokens, found.num_documents, found.vocab_size, found.eod_id) == (15, 3, 1000, 2)
    assert found.tokenizer == data / "../tokenizer"
    assert not found.has_sentences


@pytest.mark.parametrize("ending", ["", ".bin", ".idx"])
def test_one_shard_by_prefix_or_by_either_file(data: Path, ending: str) -> None:
    found = find_shards(f"{data}/shard_00001{ending}")
    assert [shard.name for shard in found.shards] == ["shard_00001"]
    assert (found.num_tokens, found.vocab_size) == (3, 1000)


@pytest.mark.parametrize("ending", ["", ".bin", ".idx"])
def test_a_pair_of_another_program(data: Path, ending: str) -> None:
    found = find_shards(f"{foreign(data)}/shard_00000{ending}")
    assert (found.num_tokens, found.vocab_size, found.tokenizer, found.highest_id) == (12, None, None, 6)


def test_a_folder_of_pairs_of_another_program(data: Path) -> None:
    assert [shard.name for shard in find_shards(str(foreign(data))).shards] == ["shard_00000", "shard_00001"]


@pytest.mark.parametrize("pattern", ["shard_*", "*.bin", "shard_0000[01].idx", "shard_*.[bi]*"])
def test_a_pattern_names_each_pair_once(data: Path, pattern: str) -> None:
    foreign(data)
    assert [shard.name for shard in find_shards(f"{data}/{pattern}").shards] == ["shard_00000", "shard_00001"]


def test_a_pattern_of_folders(tmp_path: Path) -> None:
    write_data_set(tmp_path / "data", SHARDS, eod_id=2)
    write_data_set(tmp_path / "data2", [[[9]], [[8]]], eod_id=2)
    found = find_shards(f"{tmp_path}/data*")
    assert [shard.folder.name for shard in found.shards] == ["data", "data", "data2", "data2"]


@pytest.mark.parametrize("pattern", ["data*", "data/**", "data*/shard_00000.bin"])
def test_a_pattern_that_names_a_shard_twice_is_refused(tmp_path: Path, data: Path, pattern: str) -> None:
    (tmp_path / "data_latest").symlink_to(data)
    with pytest.raises(DataError, match=r"names one shard twice: .* holds what .* holds"):
        find_shards(f"{tmp_path}/{pattern}")


def test_a_name_that_looks_like_a_pattern_is_a_name_where_it_exists(tmp_path: Path) -> None:
    odd = write_data_set(tmp_path / "data[1]*", SHARDS)
    assert find_shards(str(odd)).num_tokens == 15


def test_what_the_system_refuses_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read: File name too long\. Check the path"):
        find_shards(str(tmp_path / ("a" * 5000)))


def test_fingerprints_follow_the_content_not_the_place(tmp_path: Path, data: Path) -> None:
    shutil.copytree(data, tmp_path / "copy")
    assert find_shards(str(tmp_path / "copy")).fingerprint == find_shards(str(data)).fingerprint
    other = write_data_set(tmp_path / "other", [[range(5), range(7)], [range(1, 4)]], eod_id=2)
    assert find_shards(str(other)).fingerprint != find_shards(str(data)).fingerprint


def test_fingerprints_of_pairs_without_manifest_see_tokens_and_boundaries(tmp_path: Path, data: Path) -> None:
    first = find_shards(str(foreign(data))).fingerprint
    for name, shards in (
        ("tokens", [[range(5), range(7)], [range(1, 4)]]),
        ("boundaries", [[range(5), [0, 1], range(2, 7)], [range(3)]]),
    ):
        assert find_shards(str(foreign(write_data_set(tmp_path / name, shards)))).fingerprint != first


@pytest.mark.parametrize("kind", ["missing", "cut", "grown"])
@pytest.mark.parametrize("ending", ["bin", "idx"])
@pytest.mark.parametrize("has_manifest", [True, False])
def test_a_file_that_is_missing_cut_or_grown_is_named(data: Path, kind: str, ending: str, has_manifest: bool) -> None:
    if not has_manifest:
        foreign(data)
    file = data / f"shard_00001.{ending}"
    content = file.read_bytes()
    file.unlink()
    if kind != "missing":
        file.write_bytes(content[:-2] if kind == "cut" else content + b"\0\0")
    prefix = str(data) if has_manifest else f"{data}/shard_00001"
    with pytest.raises(DataError, match=rf"shard_00001\.{ending} (is missing|has \d+ bytes|cannot be read)"):
        find_shards(prefix)


def test_an_index_of_other_tokens_is_refused(tmp_path: Path, data: Path) -> None:
    other = write_data_set(tmp_path / "other", [[range(7), range(5)], [[1], [2], [3]]], eod_id=2)
    shutil.copyfile(other / "shard_00001.idx", data / "shard_00001.idx")
    with pytest.raises(DataError, match="shard_00001"):
        find_shards(str(data))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "is neither a data set nor a .bin/.idx pair"),
        ("nowhere*", "no file or folder matches"),
        ("empty", "is not a data set: manifest.json cannot be read"),
    ],
)
def test_nothing_is_said_to_be_nothing(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        find_shards(str(tmp_path / path))


def test_sets_of_other_tokenizers_do_not_become_one(tmp_path: Path) -> None:
    write_data_set(tmp_path / "data", SHARDS, eod_id=2)
    write_data_set(tmp_path / "data2", SHARDS, eod_id=3)
    with pytest.raises(DataError, match=r"do not belong together: eod_id is 2 in .* and 3 in"):
        find_shards(f"{tmp_path}/data*")


def test_negative_ids_and_odd_types_are_refused(tmp_path: Path, data: Path) -> None:
    wide = foreign(write_data_set(tmp_path / "wide", [[range(70_000)]], vocab_size=100_000))
    assert find_shards(f"{wide}/shard_00000").dtype == "int32"
    np.full(70_000, -1, np.int32).tofile(wide / "shard_00000.bin")
    with pytest.raises(DataError, match="negative token ids"):
        find_shards(f"{wide}/shard_00000")
    index = bytearray((foreign(data) / "shard_00000.idx").read_bytes())
    index[17] = 3  # int16, of the same size
    (data / "shard_00000.idx").write_bytes(index)
    with pytest.raises(DataError, match="holds int16 tokens; uint16 and int32 can be read"):
        find_shards(f"{data}/shard_00000")
