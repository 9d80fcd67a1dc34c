"""Documents in sentences: nothing of them lost, and their own ids, where a tokenizer allows it."""

from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.tokenizer.loading import load
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer
from data_prep.tokenizing.sentence_cutter import GapRule, GapRules, SentenceCutter, Sequences
from tests.data_sets import train_small_tokenizer

TEXTS = [text for _, text in sorted(topics.items())][:40]
SENTENCES = ["He came.", "Dr. No left (late)!", "“Why?” she asked.", "No end mark", "他来了。", "3 of 4.", "Да?"]
WITH_NEXT, WITHOUT_SPACE, LINES_BEHIND = GapRule(False, False), GapRule(False, True), GapRule(True, False)

documents = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=6)
white_space = st.sampled_from([" ", "  ", "\n", "\n\n", "\n  ", " \n", "\t", "\r\n\r\n", "\u3000", " " * 9, "\n" * 7])


def joined(documents: list[str], gaps: list[str]) -> str:
    return documents[0] + "".join(gap + text for gap, text in zip(gaps, documents[1:], strict=False))


def trained(out: Path, kind: str) -> Tokenizer:
    return train_tokenizer(TEXTS, kind=kind, vocab_size=800, out=out)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def byte_bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return trained(tmp_path_factory.mktemp("tokenizer") / "byte_bpe", "byte_bpe")


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return trained(tmp_path_factory.mktemp("tokenizer") / "wordpiece", "wordpiece")


@pytest.fixture(scope="module")
def with_prefix(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """It puts a space in front of each text, as Llama's does."""
    return load(train_small_tokenizer(tmp_path_factory.mktemp("tokenizer") / "prefix"))


def agree(tokenizer: Tokenizer, text: str) -> bool:
    """Whether the ids of a document's sentences are those of the document."""
    texts, _ = SentenceCutter("en", tokenizer, keeps_names=False).cut([text])
    [whole], parts = tokenizer.encode_batch([text]), tokenizer.encode_batch(texts)
    return np.array_equal(np.concatenate(parts), whole)


@given(documents, st.lists(white_space, min_size=5, max_size=5))
def test_the_ids_are_those_of_the_document(
    byte_bpe: Tokenizer, wordpiece: Tokenizer, sentences: list[str], gaps: list[str]
) -> None:
    assert agree(byte_bpe, joined(sentences, gaps))
    assert agree(wordpiece, joined(sentences, gaps))


@given(documents, st.lists(st.sampled_from([" ", "  ", "   "]), min_size=5, max_size=5))
def test_a_space_that_sentencepiece_adds_is_left_out(
    with_prefix: Tokenizer, sentences: list[str], gaps: list[str]
) -> None:
    assert agree(with_prefix, joined(sentences, gaps))


@given(documents, st.lists(white_space, min_size=5, max_size=5))
def test_nothing_but_one_space_is_lost(
    byte_bpe: Tokenizer, with_prefix: Tokenizer, sentences: list[str], gaps: list[str]
) -> None:
    text = joined(sentences, gaps)
    texts, counts = SentenceCutter("en", byte_bpe, keeps_names=False).cut([text])
    assert "".join(texts) == text
    assert counts.tolist() == [len(texts)]
    texts, _ = SentenceCutter("en", with_prefix, keeps_names=False).cut([text])
    at = 0
    for one in texts:
        assert text.startswith(one, at) or text.startswith(f" {one}", at)
        at += len(one) + (not text.startswith(one, at))
    assert at == len(text)


def test_what_tokenizers_ask_for(with_prefix: Tokenizer, byte_bpe: Tokenizer, wordpiece: Tokenizer) -> None:
    """The byte-level one, as those of GPT-4 and Llama 3, has line ends behind a full stop in the word of that."""
    rules = {name: GapRules(one) for name, one in (("sp", with_prefix), ("bytes", byte_bpe), ("words", wordpiece))}
    assert [rules["bytes"].rule(gap) for gap in ("", " ", "\n", "\n" * 50)] == [
        WITH_NEXT,
        WITH_NEXT,
        *[LINES_BEHIND] * 2,
    ]
    assert [rules["words"].rule(gap) for gap in ("", " ", "\n", "\n  ")] == [WITH_NEXT] * 4
    assert [rules["sp"].rule(gap) for gap in ("", " ", "\n")] == [WITH_NEXT, WITHOUT_SPACE, LINES_BEHIND]


@pytest.mark.parametrize(
    ("rule", "gap", "before", "behind"),
    [
        (WITH_NEXT, "\n ", "", "\n "),
        (WITHOUT_SPACE, "  ", "", " "),
        (WITHOUT_SPACE, "\n ", "", "\n "),
        (LINES_BEHIND, " \n\n ", " \n\n", " "),
        (LINES_BEHIND, "  ", "", "  "),
        (GapRule(True, True), "\n  ", "\n", " "),
        (GapRule(True, True), "", "", ""),
    ],
)
def test_rules(rule: GapRule, gap: str, before: str, behind: str) -> None:
    end, start = rule.cut(gap)
    assert (gap[:end], gap[start:]) == (before, behind)


def test_no_cut_falls_into_a_name_that_becomes_a_token(tmp_path: Path) -> None:
    tokenizer = trained(tmp_path / "tokenizer", "byte_bpe")
    name = "|Stop. Here|"
    tokenizer.special_tokens = {**tokenizer.special_tokens, name: 799}
    text = f"One. Two{name} three.{name} Four. {name}"
    kept, _ = SentenceCutter("en", tokenizer, keeps_names=True).cut([text])
    assert "".join(kept) == text
    assert "".join(kept).count(name) == sum(one.count(name) for one in kept) == 3
    assert kept[0] == "One."
    cut, _ = SentenceCutter("en", tokenizer, keeps_names=False).cut([text])
    assert sum(one.count(name) for one in cut) == 0


def test_documents_without_a_sentence(byte_bpe: Tokenizer) -> None:
    cutter = SentenceCutter("en", byte_bpe, keeps_names=False)
    texts, counts = cutter.cut(["", " ", "One. Two.", "\n\n"])
    assert (texts, counts.tolist()) == (["", " ", "One.", " Two.", "\n\n"], [1, 1, 2, 1])
    assert cutter.cut([]).texts == []


def test_places_of_documents() -> None:
    sequences = Sequences(list("abcdef"), np.array([2, 0, 1, 3]))
    assert sequences.of([0, 3]) == [0, 1, 3, 4, 5]
    assert sequences.of([1, 2]) == [2]
    assert sequences.of([]) == []
