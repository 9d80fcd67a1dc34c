"""Documents, looked at."""

import json
import shutil
from pathlib import Path

import pytest

from data_prep.data_sets.cat import documents
from data_prep.errors import DataError
from data_prep.manifest import TokenizerRecord
from data_prep.tokenizer.loading import load
from tests.data_sets import run_data, train_small_tokenizer, write_data_set

TEXTS = ["The first one.", "A second, with a line end\n and more", "third", "fourth"]


@pytest.fixture(scope="module")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_small_tokenizer(tmp_path_factory.mktemp("tokenizer") / "pieces")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Path) -> Path:
    tokenizer = load(small_tokenizer)
    assert tokenizer.eod_id is not None
    ids = [[*one.tolist(), tokenizer.eod_id] for one in tokenizer.encode_batch(TEXTS)]
    return write_data_set(
        tmp_path_factory.mktemp("cat") / "data",
        [ids[:1], ids[1:]],
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        metadata=True,
        tokenizer=TokenizerRecord(path=str(small_tokenizer), sha256=tokenizer.sha256),
    )


def test_texts_and_places(folder: Path) -> None:
    found = list(documents(folder, first=0, count=4))
    assert [one.text for one in found] == TEXTS
    assert [(one.shard, one.number) for one in found][:2] == [("shard_00000", 0), ("shard_00001", 0)]
    assert found[2].metadata == {"name": "data 2"}


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_data("cat", folder, "--doc", 1)
    assert capsys.readouterr().out == TEXTS[1] + "\n"
    run_data("cat", folder, "--doc", 1, "--count", 2)
    assert "--- document 2: " in capsys.readouterr().out
    run_data("cat", folder, "--doc", 2, "--ids", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["document"], shown["shard"], shown["number"]) == (2, "shard_00001", 1)
    assert len(shown["ids"]) == shown["num_tokens"]
    assert shown["metadata"] == {"name": "data 2"}


def test_sentences(tmp_path: Path, small_tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = load(small_tokenizer)
    first, second = (one.tolist() for one in tokenizer.encode_batch(["The first one.", "The second."]))
    folder = write_data_set(
        tmp_path / "data",
        [[[first, [*second, tokenizer.eod_id or 0]]]],
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        split_sentences="en",
        tokenizer=TokenizerRecord(path=str(small_tokenizer), sha256=tokenizer.sha256),
    )
    run_data("cat", folder, "--doc", 0, "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["text"] == "The first one. The second."
    assert shown["sentences"] == ["The first one.", "The second."]
    assert shown["sentence_lengths"] == [len(first), len(second) + 1]
    [view] = documents(folder, first=0, ids=True)
    assert (view.ids, view.sentences) == ([*first, *second, tokenizer.eod_id], None)
    assert view.sentence_lengths == shown["sentence_lengths"]


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (4, 1), (3, 2), (-2, 3)])
def test_out_of_range(folder: Path, first: int, count: int) -> None:
    with pytest.raises(DataError, match="it holds documents 0 to 3"):
        list(documents(folder, first=first, count=count))


def test_a_tokenizer_that_moved(tmp_path: Path, small_tokenizer: Path) -> None:
    sha256 = load(small_tokenizer).sha256
    folder = write_data_set(tmp_path / "data", [[[5, 6]]], tokenizer=TokenizerRecord(path="../gone", sha256=sha256))
    with pytest.raises(DataError, match=r"is not there\. Say where it is with --tokenizer, or look at --ids"):
        list(documents(folder, first=0))
    assert [one.ids for one in documents(folder, first=0, ids=True)] == [[5, 6]]
    assert [one.num_tokens for one in documents(folder, first=0, tokenizer=small_tokenizer)] == [2]
    other = write_data_set(tmp_path / "other", [[[5, 6]]])
    shutil.copytree(small_tokenizer, tmp_path / "tokenizer")
    with pytest.raises(DataError, match="is not the tokenizer that made"):
        list(documents(other, first=0))
