"""The quickstart's corpus: enough text, no text twice, the same each time."""

import itertools
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from data_prep.errors import DataError
from data_prep.text import docstrings, installed_docs
from data_prep.text.document import Document
from data_prep.text.installed_docs import collect, is_held_out, source_code_documents, write_corpus

SIZE = 1_500_000  # the language reference, the README texts, and some docstrings


@pytest.fixture(scope="module", autouse=True)
def _standard_library_only() -> Iterator[None]:
    """Reading all packages takes seconds, and adds nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(docstrings, "_roots", lambda: [Path(sysconfig.get_path("stdlib"))])
        yield


@pytest.fixture(scope="module")
def documents(_standard_library_only: None) -> list[Document]:
    return list(collect(max_bytes=SIZE))


def test_texts_differ_and_are_english(documents: list[Document]) -> None:
    texts = [document.text for document in documents]
    assert len(set(texts)) == len(texts)
    assert sum(len(text.encode()) for text in texts) >= SIZE
    assert sum(" the " in text for text in texts) > 0.7 * len(texts)
    kinds = {document.id.partition(":")[0].rpartition(".")[2] for document in documents}
    assert {"help", "readme", "py"} <= kinds


def test_the_corpus_is_the_same_each_time_and_held_out_by_its_text(documents: list[Document], tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, max_bytes=SIZE)
    train, held_out = ([orjson.loads(line) for line in path.open("rb")] for path in (corpus.train, corpus.held_out))
    assert train == [{"id": d.id, "text": d.text} for d in documents if not is_held_out(d)]
    assert held_out == [{"id": d.id, "text": d.text} for d in documents if is_held_out(d)]
    assert (corpus.num_train_documents, corpus.num_held_out_documents) == (len(train), len(held_out))
    assert corpus.num_train_bytes == sum(len(record["text"].encode()) for record in train)
    assert 0.005 < len(held_out) / len(documents) < 0.05
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heldout.jsonl", "train.jsonl"]


def test_a_bare_installation_is_refused_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed_docs, "_candidates", lambda: iter([Document("a", "One line of text.\n" * 60_000)]))
    with pytest.raises(DataError, match=r"hold 1\.1 MB of English documentation, 8\.0 MB"):
        write_corpus(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_duplicates_and_filled_in_templates_are_left_out() -> None:
    template = "This sentence stands in each of the documents of this family.\nIt is followed by another such one."
    texts = [
        template,
        template,
        template + "\nA short line of its own: 1",
        "Something new altogether.",
    ]
    kept = installed_docs._fresh(Document(str(i), text) for i, text in enumerate(texts))
    assert [document.id for document in kept] == ["0", "3"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("An ordinary sentence, of the kind that people write. " * 5, True),
        ("Too short.", False),
        (">>> f(x, y)[0] == {1: 2.5, 3: 4.5}\n" * 20, False),
        ("Обычное предложение на другом языке. " * 20, False),
        ("A sentence with half of a surrogate pair \ud83d in it. " * 10, False),
    ],
)
def test_prose(text: str, expected: bool) -> None:
    assert docstrings.is_prose(text) is expected


def _die(_: object) -> None:
    os._exit(1)


def test_a_killed_worker_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docstrings, "_prose_share", _die)
    with pytest.raises(DataError, match="ended early: it was killed"):
        list(docstrings.installed_docstrings())


def test_source_code_has_no_docstrings_and_is_not_in_the_corpus(documents: list[Document]) -> None:
    code = list(source_code_documents(max_bytes=100_000))
    assert 100_000 <= sum(len(document.text) for document in code) < 400_000
    for document in code:
        compile(document.text, document.id, "exec")
        assert '"""' not in document.text
    lines = set(itertools.chain.from_iterable(document.text.split("\n") for document in documents))
    code_lines = [line for document in code for line in document.text.split("\n") if len(line) > 30]
    assert sum(line in lines for line in code_lines) < 0.01 * len(code_lines)
