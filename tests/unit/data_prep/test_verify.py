"""Whatever byte of a data set changes, something says so."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.format import token_dtype
from data_prep.manifest import TokenizerRecord, load_manifest, make_manifest, save_manifest
from data_prep.verify import verify
from data_prep.writer import ShardWriter

VOCAB_SIZE, EOD_ID = 50, 2


def make_data_set(folder: Path, documents: list[list[int]]) -> Path:
    """A data set of two shards, with `documents` in each."""
    folder.mkdir()
    shards = []
    for name in ("shard_00000", "shard_00001"):
        with ShardWriter(folder, name, token_dtype(VOCAB_SIZE)) as writer:
            for tokens in documents:
                writer.append(np.array(tokens))
            shards.append(writer.commit())
    manifest = make_manifest(
        vocab_size=VOCAB_SIZE,
        dtype="uint16",
        eod_id=EOD_ID,
        num_text_bytes=100,
        tokenizer=TokenizerRecord(path="../tokenizer", sha256="0" * 64),
        shards=shards,
    )
    save_manifest(manifest, folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("verify") / "data", [[5, 6, EOD_ID], [7, EOD_ID], [8, 9, 10, EOD_ID]])


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_whole_data_set(whole: Path) -> None:
    manifest = verify(whole)
    assert (manifest.num_documents, manifest.num_tokens, len(manifest.shards)) == (6, 18, 2)


FILES = ["manifest.json", *(f"shard_0000{i}.{kind}" for i in (0, 1) for kind in ("bin", "idx"))]


@given(
    name=st.sampled_from(FILES), place=st.integers(0, 2**20), damage=st.sampled_from(["flip", "cut", "grow", "delete"])
)
def test_any_damage_is_found(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, name: str, place: int, damage: str
) -> None:
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("damaged") / "data")
    path = folder / name
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place] ^= 1 << (place % 7)
    new = {"flip": bytes(content), "cut": path.read_bytes()[:place], "grow": path.read_bytes() + b"x"}.get(damage)
    path.unlink() if new is None else path.write_bytes(new)
    try:
        manifest = verify(folder)
    except DataError:
        return
    # In JSON there are bytes that mean nothing (spaces), and the tokenizer's path is free.
    expected = dataclasses.replace(load_manifest(whole), tokenizer=manifest.tokenizer)
    assert name == "manifest.json"
    assert manifest == expected


def test_ids_outside_the_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shard_00001.bin: ids from 0 to 50 are outside the vocabulary of 50"):
        verify(make_data_set(tmp_path / "data", [[1, VOCAB_SIZE, EOD_ID]]))


def test_documents_without_their_end(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not every document ends with the end-of-document id 2"):
        verify(make_data_set(tmp_path / "data", [[EOD_ID, 1], [3, EOD_ID]]))


def test_files_that_the_manifest_does_not_name(copy: Path) -> None:
    (copy / "shard_00002.bin").touch()
    with pytest.raises(DataError, match=r"shard_00002\.bin is not named by manifest\.json"):
        verify(copy)


def test_another_tokenizer_in_its_place(copy: Path, tokenizer: object) -> None:
    shutil.copytree(tokenizer.folder, copy.parent / "tokenizer")  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="is not the tokenizer that made the data set"):
        verify(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version=2 is not readable"),
        ({"vocab_size": "many"}, "vocab_size: 'many' is wrong because it is not int"),
        ({"eod_id": True}, "eod_id: True is wrong because it is not int or NoneType"),
        ({"extra": 1}, r"fields \['extra'\] are missing or unknown"),
        ({"shards": [{"name": "shard_00000"}]}, r"shards\[0\]: fields .*'num_tokens'.* are missing or unknown"),
        ({"shards": {}}, "shards: {} is wrong because"),
        ({"num_tokens": 17}, "num_tokens=17, but its shards sum to 18"),
        ({"vocab_size": 51}, "fingerprint=.* does not follow"),
    ],
)
def test_a_wrong_manifest_names_the_field(copy: Path, change: dict[str, object], message: str) -> None:
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        verify(copy)


@pytest.mark.parametrize("content", ["", "[]", "null", "7", '"x"', "{}", "\udc80"])
def test_a_manifest_that_is_none(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"manifest\.json"):
        load_manifest(copy)


def test_the_fingerprint_is_of_the_data_alone(whole: Path) -> None:
    manifest = load_manifest(whole)
    moved = dataclasses.replace(manifest, tokenizer=TokenizerRecord(path="/elsewhere", sha256="0" * 64))
    other = dataclasses.replace(manifest, tokenizer=TokenizerRecord(path="../tokenizer", sha256="1" * 64))
    assert moved.expected_fingerprint() == manifest.fingerprint != other.expected_fingerprint()
