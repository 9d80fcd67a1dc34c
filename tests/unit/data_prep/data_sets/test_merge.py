"""Several data sets as one."""

import os
from pathlib import Path

import pytest

from data_prep.data_sets.merge import merge
from data_prep.data_sets.verify import verify
from data_prep.errors import DataError
from data_prep.manifest import TokenizerRecord, load_manifest
from tests.data_sets import read_documents, read_names, read_sentences, run_data, write_data_set


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [
        write_data_set(tmp_path / "one", [[[1, 2], []], [[3]]], metadata=True),
        write_data_set(tmp_path / "deep" / "two", [[[4, 5, 6]]], metadata=True),
    ]


def test_all_documents_in_order(tmp_path: Path, two: list[Path]) -> None:
    out = tmp_path / "merged"
    manifest = merge(two, out)
    assert manifest == verify(out) == load_manifest(out)
    assert read_documents(out) == [[1, 2], [], [3], [4, 5, 6]]
    assert read_names(out) == ["one 0", "one 1", "one 2", "two 0"]
    assert [shard.name for shard in manifest.shards] == ["shard_00000", "shard_00001", "shard_00002"]
    assert len(manifest.sources) == len(manifest.preparations) == 2
    assert (out / "shard_00002.bin").samefile(two[1] / "shard_00000.bin")
    assert manifest.tokenizer_path(out).resolve() == (tmp_path / "tokenizer").resolve()


def test_another_file_system(tmp_path: Path, two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    merge(two, tmp_path / "merged")
    assert read_documents(tmp_path / "merged") == [[1, 2], [], [3], [4, 5, 6]]
    verify(tmp_path / "merged")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eod_id": 2}, "eod_id: None and 2"),
        ({"vocab_size": 100_000}, "vocab_size: 1000 and 100000; dtype: uint16 and int32"),
        ({"tokenizer": TokenizerRecord(path="x", sha256="1" * 64)}, "tokenizer.sha256: 0+ and 1+"),
    ],
)
def test_what_was_not_made_alike(tmp_path: Path, two: list[Path], change: dict[str, object], message: str) -> None:
    other = write_data_set(tmp_path / "other", [[[7, 2]]], **change)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"were not made alike \({message}\)"):
        merge([*two, other], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_sentences(tmp_path: Path) -> None:
    folders = [write_data_set(tmp_path / f"{n}", [[[[n], [n, n]], [[n]]]], split_sentences="en") for n in range(2)]
    manifest = merge(folders, tmp_path / "merged")
    assert verify(tmp_path / "merged") == manifest
    assert (manifest.sequences_are_sentences, manifest.num_sequences) == (True, 6)
    assert read_sentences(tmp_path / "merged") == [[[0], [0, 0]], [[0]], [[1], [1, 1]], [[1]]]
    other = write_data_set(tmp_path / "other", [[[7, 2]]])
    with pytest.raises(DataError, match=r"not made alike \(sequences: sentences and documents\)"):
        merge([*folders, other], tmp_path / "again")


def test_the_same_twice(tmp_path: Path, two: list[Path]) -> None:
    merge(two, tmp_path / "merged")
    for folders in ([two[0], two[0]], [tmp_path / "merged", two[1]]):
        with pytest.raises(DataError, match="hold the same documents"):
            merge(folders, tmp_path / "again")


def test_what_fails_leaves_nothing(tmp_path: Path, two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("data_prep.data_sets.merge.save_manifest", interrupt)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        merge(two, tmp_path / "merged")
    assert sorted(tmp_path.iterdir()) == before


def test_an_occupied_folder(two: list[Path]) -> None:
    with pytest.raises(DataError, match="exists already"):
        merge(two, two[0])


def test_the_command(tmp_path: Path, two: list[Path]) -> None:
    assert run_data("merge", *two, "--out", tmp_path / "plain") == 0
    assert run_data("merge", *two, "--out", tmp_path / "mixed", "--shuffle", 3) == 0
    assert sorted(read_documents(tmp_path / "mixed")) == sorted(read_documents(tmp_path / "plain"))
