"""Text to a data set of sentences: what is in it, and that all that holds for documents still holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from data_prep.data_sets.data_set import DataSet
from data_prep.data_sets.verify import verify
from data_prep.data_sets.verify_text import verify_text
from data_prep.errors import DataError
from data_prep.format import idx_bytes, open_shard
from data_prep.manifest import Manifest, SentenceRecord
from data_prep.text import sentences as sentences_module
from data_prep.text.sentences import library
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer
from data_prep.tokenizing.job import TokenizeConfig
from data_prep.tokenizing.options import Options
from data_prep.tokenizing.tokenize import tokenize

# By document, its sentences; the tokenizer puts no space in front of a text.
SENTENCES = [[f"Document {i} has text.", *([" Mr. Day said more!"] * (i % 4)), "\n\nIts end"] for i in range(120)]
TEXTS = ["".join(one) for one in SENTENCES]
CONFIG = TokenizeConfig(split_sentences="en", unit_bytes=700)


def line(text: object) -> bytes:
    return orjson.dumps({"text": text, "length": len(str(text))}) + b"\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"".join(map(line, [*TEXTS, ""])))
    return path


def make(out: Path, tokenizer: Tokenizer, corpus: Path, config: TokenizeConfig = CONFIG, **arguments: Any) -> Manifest:
    outcome = tokenize(inputs=[corpus], tokenizer=tokenizer.folder, out=out, config=config, engine="hf", **arguments)
    assert outcome.manifest
    return outcome.manifest


def documents(out: Path) -> Iterator[list[list[int]]]:
    """Read as plainly as can be: by the tables of each .idx."""
    for shard in DataSet(out).manifest.shards:
        tokens, index = open_shard(out, shard.name)
        sequences = np.split(tokens, np.cumsum(index.lengths)[:-1]) if len(index.lengths) else []
        for first, last in zip(index.document_indices[:-1], index.document_indices[1:], strict=True):
            yield [sequence.tolist() for sequence in sequences[first:last]]


def expected_documents(tokenizer: Tokenizer, *, eod: bool) -> list[list[list[int]]]:
    found = [[ids.tolist() for ids in tokenizer.encode_batch(one)] for one in SENTENCES]
    return [[*one[:-1], [*one[-1], *([tokenizer.eod_id] if eod else [])]] for one in found]


@pytest.mark.parametrize("eod", [True, False])
def test_each_sentence_is_a_sequence(tmp_path: Path, corpus: Path, tokenizer: Tokenizer, eod: bool) -> None:
    out = tmp_path / "out"
    config = TokenizeConfig(split_sentences="en", unit_bytes=700, append_eod=eod)
    manifest = make(out, tokenizer, corpus, config)
    expected = expected_documents(tokenizer, eod=eod)
    assert list(documents(out)) == expected
    assert manifest == verify(out)
    assert manifest.sequences_are_sentences
    assert manifest.preparations[0].sentences == SentenceRecord(language="en", library=library())
    assert (manifest.num_documents, manifest.num_sequences) == (len(TEXTS), sum(map(len, SENTENCES)))
    assert manifest.num_text_bytes == sum(map(len, TEXTS))
    data_set = DataSet(out)
    assert data_set.document(3).tolist() == [token for ids in expected[3] for token in ids]
    assert [ids.tolist() for ids in data_set.sequences(3)] == expected[3]
    assert verify_text(out).num_identical == verify_text(out).num_documents > 0
    for shard in manifest.shards:
        assert (out / f"{shard.name}.idx").stat().st_size == idx_bytes(shard.num_sequences, shard.num_documents)


def test_the_ids_are_those_of_a_data_set_of_documents(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    make(tmp_path / "documents", tokenizer, corpus, TokenizeConfig(unit_bytes=700))
    make(tmp_path / "sentences", tokenizer, corpus)
    for path in (tmp_path / "documents").glob("*.bin"):
        assert path.read_bytes() == (tmp_path / "sentences" / path.name).read_bytes()


def test_the_bytes_do_not_depend_on_workers_tasks_or_interruptions(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer
) -> None:
    def files(out: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in out.iterdir() if path.name != "job.json"}

    make(tmp_path / "one", tokenizer, corpus)
    expected = files(tmp_path / "one")
    assert len(expected) > 20
    make(tmp_path / "two", tokenizer, corpus, workers=2)
    assert files(tmp_path / "two") == expected
    for index in (1, 0):
        arguments = {"tokenizer": tokenizer.folder, "out": tmp_path / "tasks", "config": CONFIG, "engine": "hf"}
        tokenize(inputs=[corpus], task=f"{index}/2", **arguments)  # type: ignore[arg-type]
    assert files(tmp_path / "tasks") == expected
    (tmp_path / "one" / "shard_00001.idx").write_bytes(expected["shard_00001.idx"][:-8])
    (tmp_path / "one" / "shard_00002.json").unlink()
    make(tmp_path / "one", tokenizer, corpus)
    assert files(tmp_path / "one") == expected


def test_documents_are_what_is_counted(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    corpus.write_bytes(corpus.read_bytes() + b"nonsense\n" + line(TEXTS[5].replace(" ", "  ")) + line("New. One."))
    config = TokenizeConfig(split_sentences="en", unit_bytes=700, dedup=True, metadata_keys=("length",))
    out = tmp_path / "out"
    manifest = make(out, tokenizer, corpus, config, options=Options(on_bad_record="quarantine"))
    counters = manifest.preparations[0].counters
    assert (counters.documents, counters.duplicate, counters.num_bad) == (len(TEXTS) + 1, 1, 1)
    kept = list(DataSet(out).metadata(range(manifest.num_documents)))
    assert [one["length"] for one in kept if one] == [*map(len, TEXTS), 9]
    assert len(list(out.glob("quarantine/*"))) == 1
    verify(out)


def test_sentences_of_nothing_are_left_out(tmp_path: Path) -> None:
    """WordPiece makes nothing of control characters."""
    wordpiece = train_tokenizer(TEXTS, kind="wordpiece", vocab_size=170, out=tmp_path / "wordpiece")
    texts = ["It has text. \x07! More text.", "\x07. \x07", " \n\n "]
    (tmp_path / "a.jsonl").write_bytes(b"".join(map(line, texts)))
    config = TokenizeConfig(split_sentences="en", append_eod=False)
    manifest = make(tmp_path / "out", wordpiece, tmp_path / "a.jsonl", config)
    found = list(documents(tmp_path / "out"))
    assert all(len(sequence) for one in found for sequence in one)
    assert manifest.preparations[0].counters.empty == len(texts) - len(found) == 1
    assert manifest.preparations[0].counters.is_complete()
    verify(tmp_path / "out")


def test_names_of_special_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_bytes(line("One. <|eos|> Two.<|eos|>"))
    for policy, count in (("split", 1), ("encode", 3)):
        config = TokenizeConfig(split_sentences="en", special_in_text=policy)
        make(tmp_path / policy, tokenizer, tmp_path / "a.jsonl", config)
        [found] = documents(tmp_path / policy)
        assert sum(ids.count(tokenizer.eod_id or 0) for ids in found) == count
    config = TokenizeConfig(split_sentences="en", special_in_text="error")
    with pytest.raises(DataError, match="special token"):
        make(tmp_path / "error", tokenizer, tmp_path / "a.jsonl", config)


def test_an_engine_is_compared_with_the_reference_on_sentences(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer
) -> None:
    arguments = {"config": CONFIG, "options": Options(recheck=100)}
    outcome = tokenize(inputs=[corpus], tokenizer=tokenizer.folder, out=tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert outcome.manifest
    assert list(documents(tmp_path / "out")) == expected_documents(tokenizer, eod=True)


def test_a_text_of_one_endless_sentence(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_bytes(line("字" * 10_000) + line("word " * 4_000))
    manifest = make(tmp_path / "out", tokenizer, tmp_path / "a.jsonl")
    assert (manifest.num_documents, manifest.num_sequences) == (2, 2)


@pytest.mark.parametrize("language", ["xx", "en-US", ""])
def test_an_unknown_language_is_refused_before_anything_is_made(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, language: str
) -> None:
    with pytest.raises(DataError, match=f"--split-sentences {language} is no language"):
        make(tmp_path / "out", tokenizer, corpus, TokenizeConfig(split_sentences=language))
    assert not (tmp_path / "out").exists()


def test_another_library_or_language_is_another_job(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "out", tokenizer, corpus)
    with pytest.raises(DataError, match='split_sentences: "en" -> "de"'):
        make(tmp_path / "out", tokenizer, corpus, TokenizeConfig(split_sentences="de", unit_bytes=700))
    with pytest.raises(DataError, match='split_sentences: "en" -> null'):
        make(tmp_path / "out", tokenizer, corpus, TokenizeConfig(unit_bytes=700))
    monkeypatch.setattr(sentences_module, "library", lambda: "sentencex 9")
    with pytest.raises(DataError, match=rf"what finds sentences: {library()} -> sentencex 9"):
        make(tmp_path / "out", tokenizer, corpus)
