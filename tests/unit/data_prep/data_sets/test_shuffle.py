"""A random order of all documents: none lost, none twice, the same bytes whatever the memory."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.data_sets.shuffle import document_keys, shuffle
from data_prep.data_sets.verify import verify
from data_prep.errors import DataError
from data_prep.manifest import Manifest, load_manifest
from tests.data_sets import read_documents, read_names, read_sentences, write_data_set

documents = st.lists(st.integers(0, 999), max_size=6)
shards = st.lists(st.lists(documents, max_size=6), max_size=3)


def test_keys_are_distinct_and_spread() -> None:
    keys = document_keys(7, 0, 100_000)
    assert len(np.unique(keys)) == len(keys)
    assert np.array_equal(keys[500:600], document_keys(7, 500, 100))
    counts = np.bincount((keys >> np.uint64(60)).astype(int), minlength=16)
    assert abs(counts - 6250).max() < 5 * 6250**0.5
    follows = np.argsort(keys)[1:] > np.argsort(keys)[:-1]
    assert abs(follows.mean() - 0.5) < 0.01
    assert not np.array_equal(np.argsort(keys[:100]), np.argsort(document_keys(8, 0, 100)))


@settings(max_examples=15)  # each writes files and syncs them
@given(shards, shards, st.integers(0, 2**63 - 1), st.integers(1, 40))
def test_the_documents_are_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    one: list[list[list[int]]],
    two: list[list[list[int]]],
    seed: int,
    shard_tokens: int,
) -> None:
    path = tmp_path_factory.mktemp("shuffle")
    other = [[[token + 1000 for token in row] for row in shard] for shard in two]  # equal shards would be refused
    folders = [
        write_data_set(path / "one", [*one, [[1]]], vocab_size=2000, metadata=True),
        write_data_set(path / "two", [*other, [[1001]]], vocab_size=2000),
    ]
    plain = [document for folder in folders for document in read_documents(folder)]
    names = read_names(folders[0])
    outs = []
    for memory_bytes in (64, 5_000, 10**8):
        out = path / f"out{memory_bytes}"
        shuffle(folders, out, seed=seed, memory_bytes=memory_bytes, shard_tokens=shard_tokens)
        verify(out)
        found = read_documents(out)
        assert Counter(map(tuple, found)) == Counter(map(tuple, plain))
        outs.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert outs[0] == outs[1] == outs[2]
    order = np.argsort(document_keys(seed, 0, len(plain)))
    assert found == [plain[number] for number in order]
    with_names = [names[number] for number in order if number < len(names)]
    assert [record for record in _names(out) if record is not None] == with_names


def _names(folder: Path) -> list[str | None]:
    from data_prep.data_sets.data_set import DataSet

    data_set = DataSet(folder)
    return [(record or {}).get("name") for record in data_set.metadata(range(len(data_set)))]


def test_sentences_stay_with_their_documents(tmp_path: Path) -> None:
    rows = [[[number] * (1 + number % 3), *([[number, 7]] * (number % 4))] for number in range(1, 60)]
    folder = write_data_set(tmp_path / "a", [rows[:20], rows[20:]], split_sentences="en", metadata=True)
    outs = []
    for memory_bytes in (64, 10**8):
        shuffle([folder], tmp_path / f"out{memory_bytes}", seed=3, memory_bytes=memory_bytes, shard_tokens=50)
        outs.append(tmp_path / f"out{memory_bytes}")
        assert verify(outs[-1]).sequences_are_sentences
    assert read_sentences(outs[0]) == [rows[number] for number in np.argsort(document_keys(3, 0, len(rows)))]
    assert {file.name: file.read_bytes() for file in outs[0].iterdir()} == {
        file.name: file.read_bytes() for file in outs[1].iterdir()
    }


def test_shards_do_not_matter(tmp_path: Path) -> None:
    rows = [[number, number + 1] for number in range(30)]
    folders = [write_data_set(tmp_path / "a", [rows]), write_data_set(tmp_path / "b", [rows[:7], [], rows[7:]])]
    outs = [shuffle([folder], tmp_path / f"out {folder.name}", seed=1) for folder in folders]
    assert outs[0].fingerprint == outs[1].fingerprint
    assert read_documents(tmp_path / "out a") != rows


def test_a_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    folder = write_data_set(tmp_path / "data", [[[1, 2]]])
    monkeypatch.setattr("data_prep.data_sets.shuffle.shutil.disk_usage", lambda _: Usage(10))
    with pytest.raises(DataError, match="shuffling needs about"):
        shuffle([folder], tmp_path / "out", seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_damage_is_not_carried_over(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [[[1, 2], [3]]])
    path = folder / "shard_00000.bin"
    path.write_bytes(b"\7" + path.read_bytes()[1:])
    with pytest.raises(DataError, match="its bytes changed"):
        shuffle([folder], tmp_path / "out", seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_totals_stay(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [[[1, 2], [3]]])
    before, after = load_manifest(folder), shuffle([folder], tmp_path / "out", seed=0)

    def kept(manifest: Manifest) -> list[object]:
        return [manifest.sources, manifest.preparations, manifest.num_text_bytes, manifest.num_documents]

    assert kept(before) == kept(after)
