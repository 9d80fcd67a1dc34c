"""Whatever byte of a data set changes, something says so."""

import dataclasses
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.accounting import Counters
from data_prep.data_sets.packing import pack
from data_prep.data_sets.verify import verify
from data_prep.data_sets.verify_text import verify_text
from data_prep.errors import DataError
from data_prep.manifest import Manifest, TokenizerRecord, load_manifest, save_manifest
from data_prep.tokenizer.loading import load
from tests.data_sets import preparation, run_data, train_small_tokenizer, write_data_set

VOCAB_SIZE, EOD_ID = 50, 2
DOCUMENTS = [[5, 6, EOD_ID], [7, EOD_ID], [8, 9, 10, EOD_ID]]


def make_data_set(folder: Path, documents: list[list[int]]) -> Path:
    """A data set of two shards, with `documents` in each."""
    return write_data_set(folder, [documents, documents], vocab_size=VOCAB_SIZE, eod_id=EOD_ID, metadata=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_data_set(tmp_path_factory.mktemp("verify") / "data", DOCUMENTS)
    pack(folder, seq_len=4)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_whole_data_set(whole: Path) -> None:
    manifest = verify(whole)
    assert (manifest.num_documents, manifest.num_tokens, len(manifest.shards)) == (6, 18, 2)


FILES = [
    "manifest.json",
    *(f"shard_0000{i}.{kind}" for i in (0, 1) for kind in ("bin", "idx", "metadata.jsonl.zst", "packed_4")),
]


@settings(max_examples=300)
@given(
    name=st.sampled_from(FILES),
    place=st.integers(0, 2**20),
    bit=st.integers(0, 7),
    damage=st.sampled_from(["flip", "cut", "grow", "delete"]),
)
def test_any_damage_is_found(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, name: str, place: int, bit: int, damage: str
) -> None:
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("damaged") / "data")
    path = folder / name
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place] ^= 1 << bit
    new = {"flip": bytes(content), "cut": path.read_bytes()[:place], "grow": path.read_bytes() + b" "}.get(damage)
    path.unlink() if new is None else path.write_bytes(new)
    with pytest.raises(DataError):
        verify(folder)


def test_ids_outside_the_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shard_00001.bin: ids from 1 to 50 are outside the vocabulary of 50"):
        verify(make_data_set(tmp_path / "data", [[1, VOCAB_SIZE, EOD_ID]]))


@pytest.mark.parametrize("documents", [[[EOD_ID, 1], [3, EOD_ID]], [[3, EOD_ID], []]])
def test_documents_without_their_end(tmp_path: Path, documents: list[list[int]]) -> None:
    with pytest.raises(DataError, match="not every document ends with the end-of-document id 2"):
        verify(make_data_set(tmp_path / "data", documents))


def test_every_problem_is_named(copy: Path) -> None:
    (copy / "shard_00000.bin").unlink()
    path = copy / "shard_00001.bin"
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"(?s)shard_00000\.bin is missing.*shard_00001\.bin: its bytes changed"):
        verify(copy)


def test_sentences(tmp_path: Path) -> None:
    documents = [[[5, 6], [7, EOD_ID]], [[8, EOD_ID]], []]
    folder = write_data_set(tmp_path / "data", [documents], eod_id=EOD_ID, split_sentences="en")
    assert verify(folder).num_sequences == 3
    path = folder / "shard_00000.idx"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(struct.pack("<4q", 0, 2, 3, 3), struct.pack("<4q", 0, 1, 3, 3)))
    with pytest.raises(DataError, match=r"not every document ends with .*\n.*shard_00000\.idx: its bytes changed"):
        verify(folder)
    path.write_bytes(whole.replace(struct.pack("<4q", 0, 2, 3, 3), struct.pack("<4q", 0, 3, 2, 3)))
    with pytest.raises(DataError, match="the document boundaries do not rise"):
        verify(folder)


@pytest.mark.parametrize(
    ("documents", "split_sentences", "message"),
    [
        ([[[5], [], [6]]], "en", "it holds sentences without tokens"),
        (
            [[[5], [6]]],
            None,
            r"the document boundaries are not 0, 1, 2 \.\.\., as they are where a document is a sequence",
        ),
    ],
)
def test_sequences_that_are_not_what_the_manifest_says(
    tmp_path: Path, documents: list[list[list[int]]], split_sentences: str | None, message: str
) -> None:
    folder = write_data_set(tmp_path / "data", [documents], split_sentences="en")
    manifest = load_manifest(folder)
    preparations = tuple(preparation(one.counters.documents, split_sentences) for one in manifest.preparations)
    changed = dataclasses.replace(manifest, preparations=preparations)
    save_manifest(dataclasses.replace(changed, checksum=changed.expected_checksum()), folder)
    with pytest.raises(DataError, match=message):
        verify(folder)


def test_preparations_that_disagree_on_sentences(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [[[[5], [6]]]], split_sentences="en")
    manifest = load_manifest(folder)
    changed = dataclasses.replace(manifest, preparations=(preparation(1, "en"), preparation(0)))
    save_manifest(dataclasses.replace(changed, checksum=changed.expected_checksum()), folder)
    with pytest.raises(DataError, match="some of its preparations made sentences, and some documents"):
        verify(folder)


def test_files_that_the_manifest_does_not_name(copy: Path) -> None:
    (copy / "shard_00002.bin").touch()
    with pytest.raises(DataError, match=r"shard_00002\.bin is not named by manifest\.json"):
        verify(copy)


def test_another_tokenizer_in_its_place(copy: Path) -> None:
    train_small_tokenizer(copy.parent / "tokenizer")
    with pytest.raises(DataError, match="is not the tokenizer that made the data set"):
        verify(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 1}, "format_version=1 is not readable"),
        ({"vocab_size": "many"}, "vocab_size: 'many' is wrong because it is not int"),
        ({"eod_id": True}, "eod_id: True is wrong because it is not int or NoneType"),
        ({"extra": 1}, r"fields \['extra'\] are missing or unknown"),
        ({"shards": [{"name": "shard_00000"}]}, r"shards\[0\]: fields .*'num_tokens'.* are missing or unknown"),
        ({"shards": {}}, "shards: {} is wrong because"),
        ({"num_tokens": 17}, "num_tokens=17, but its shards sum to 18"),
        ({"vocab_size": 51}, "fingerprint=.* does not follow"),
        ({"metadata_keys": []}, "checksum=.* does not follow from its other fields: one was changed"),
    ],
)
def test_a_wrong_manifest_names_the_field(copy: Path, change: dict[str, object], message: str) -> None:
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        verify(copy)


def saved(manifest: Manifest, folder: Path) -> Path:
    """`folder` with a manifest whose fingerprint and checksum follow, whatever else it says."""
    manifest = dataclasses.replace(manifest, fingerprint=manifest.expected_fingerprint())
    save_manifest(dataclasses.replace(manifest, checksum=manifest.expected_checksum()), folder)
    return folder


def test_sources_that_do_not_sum_up(copy: Path) -> None:
    manifest = load_manifest(copy)
    source = dataclasses.replace(manifest.sources[0], num_tokens=17)
    with pytest.raises(DataError, match="num_tokens=18, but its sources sum to 17"):
        verify(saved(dataclasses.replace(manifest, sources=(source,)), copy))


@pytest.mark.parametrize(
    ("counters", "message"),
    [
        (Counters(lines=7, documents=6), r"preparations\[0\]: 7 records, but not as many are accounted for"),
        (Counters(lines=7, documents=7), "num_documents=6, but its preparations made 7"),
        (Counters(lines=5, documents=5), "num_documents=6, but its preparations made 5"),
    ],
)
def test_records_that_are_not_accounted_for(copy: Path, counters: Counters, message: str) -> None:
    wrong = dataclasses.replace(preparation(6), counters=counters)
    with pytest.raises(DataError, match=message):
        verify(saved(dataclasses.replace(load_manifest(copy), preparations=(wrong,)), copy))


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


TEXTS = [f"Sentence {number}, of an ordinary text\nwith  spaces and \u00e9." for number in range(30)]


class TestDeep:
    """Ids, decoded and encoded again."""

    def make(self, folder: Path, ids: list[list[int]] | None = None) -> Path:
        path = train_small_tokenizer(folder / "tokenizer")
        tokenizer = load(path)
        assert tokenizer.eod_id is not None
        ids = ids or [one.tolist() for one in tokenizer.encode_batch(TEXTS)]
        return write_data_set(
            folder / "data",
            [[[*one, tokenizer.eod_id] for one in ids], []],
            vocab_size=tokenizer.vocab_size,
            eod_id=tokenizer.eod_id,
            tokenizer=TokenizerRecord(path="../tokenizer", sha256=tokenizer.sha256),
        )

    def test_texts_come_back(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = self.make(tmp_path)
        sample = verify_text(folder)
        assert (sample.num_documents, sample.num_identical, sample.num_eod_inside) == (30, 30, 0)
        assert run_data("verify", folder, "--deep", "--json") == 0
        assert json.loads(capsys.readouterr().out)["sample_num_identical"] == 30

    def test_a_text_may_hold_replacement_characters(self, tmp_path: Path) -> None:
        tokenizer = load(train_small_tokenizer(tmp_path / "first" / "tokenizer"))
        ids = [tokenizer.encode_batch(["broken \ufffd in the source"])[0].tolist()]
        assert verify_text(self.make(tmp_path / "second", ids)).num_identical == 1

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        folder = self.make(tmp_path, [[3 + 0xFF, 3 + 0xFE, 300]])  # byte pieces follow three special ones
        verify(folder)
        with pytest.raises(DataError, match=r"1 of 1 sampled documents are no text of .*\(documents 0; see"):
            verify_text(folder)

    def test_ids_of_another_tokenizer(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        folder = self.make(tmp_path, [rng.integers(260, 500, 300).tolist() for _ in range(40)])
        with pytest.raises(DataError, match="none of 32 sampled documents encodes to its own ids"):
            verify_text(folder)

    def test_without_a_tokenizer(self, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_data("verify", whole, "--deep") == 0
        assert "nothing was decoded" in capsys.readouterr().err
