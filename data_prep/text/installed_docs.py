"""The quickstart's corpus: the English documentation that every Python installation has. Nothing is downloaded.

Sources, in this order: the language reference that `help()` shows, the README texts of the installed packages, and the
docstrings of the standard library and the packages.
"""

import hashlib
import importlib.metadata
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import orjson

from data_prep.atomic import replacing
from data_prep.errors import DataError
from data_prep.progress import progress
from data_prep.text.docstrings import MIN_CHARACTERS, installed_docstrings, is_prose, without_docstrings
from data_prep.text.document import Document

MAX_BYTES = (
    12_000_000  # what follows is found in ever less documented files: a MB costs twice the time of the first ones
)
MIN_BYTES = 8_000_000
HELD_OUT_SHARE = 0.02
MIN_FRESH = 0.5  # share of a text's lines not seen before: what is under it is a template, filled in again
MIN_LINE_CHARACTERS = 20  # shorter lines ("Examples", "--------") repeat in any text
SOURCE_CODE_BYTES = 400_000


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The two files that `write_corpus` made, and what is in them; bytes are of UTF-8 text."""

    train: Path
    held_out: Path
    num_train_documents: int
    num_held_out_documents: int
    num_train_bytes: int
    num_held_out_bytes: int


def is_held_out(document: Document) -> bool:
    """Whether the document is one of the 2 % kept for evaluation: a function of its text alone."""
    return _hash(document.text) < HELD_OUT_SHARE * 2**64


def collect(*, max_bytes: int = MAX_BYTES, min_bytes: int = MIN_BYTES) -> Iterator[Document]:
    """Documents, no two equal, in an order that is the same each time for one installation.

    Args:
        max_bytes: of UTF-8 text; the document that reaches it is the last one.

    Raises:
        DataError: the installation holds less than `min_bytes`.
    """
    size = 0
    with progress("collect text", total=max_bytes) as shown:
        for document in _fresh(_candidates()):
            yield document
            count = len(document.text.encode())
            size += count
            shown.update(count)
            if size >= max_bytes:
                return
    if size < min_bytes:
        raise DataError(
            f"the installed Python packages hold {size / 1e6:.1f} MB of English documentation, {min_bytes / 1e6:.1f} "
            "MB are needed. Install the project with its dependencies (`make quickstart` does), or use your own text."
        )


def write_corpus(folder: Path, *, max_bytes: int = MAX_BYTES, min_bytes: int = MIN_BYTES) -> Corpus:
    """Collect the corpus and write `folder/train.jsonl` and `folder/heldout.jsonl`, each whole or not at all.

    Raises:
        DataError: the installation holds less than `min_bytes`, or the files cannot be written.
    """
    paths = (folder / "train.jsonl", folder / "heldout.jsonl")
    counts, sizes = [0, 0], [0, 0]
    with ExitStack() as stack:
        temporary = [stack.enter_context(replacing(path)) for path in paths]
        files: list[BinaryIO] = [stack.enter_context(path.open("wb")) for path in temporary]
        for document in collect(max_bytes=max_bytes, min_bytes=min_bytes):
            which = int(is_held_out(document))
            files[which].write(orjson.dumps({"id": document.id, "text": document.text}) + b"\n")
            counts[which] += 1
            sizes[which] += len(document.text.encode())
    return Corpus(
        train=paths[0],
        held_out=paths[1],
        num_train_documents=counts[0],
        num_held_out_documents=counts[1],
        num_train_bytes=sizes[0],
        num_held_out_bytes=sizes[1],
    )


def source_code_documents(*, max_bytes: int = SOURCE_CODE_BYTES) -> Iterator[Document]:
    """Source code of standard-library modules without docstrings and comments: text of a kind that the corpus lacks.

    Args:
        max_bytes: of UTF-8 text; the module that reaches it is the last one.
    """
    root = Path(sysconfig.get_path("stdlib"))
    size = 0
    for path in sorted(root.glob("*.py"), key=lambda path: _hash(path.name)):
        text = without_docstrings(path) or ""
        if len(text) >= MIN_CHARACTERS and text.isascii():
            yield Document(path.name, text)
            size += len(text)
        if size >= max_bytes:
            return


def _fresh(documents: Iterator[Document]) -> Iterator[Document]:
    """The documents that are new in text, and mostly new in their lines."""
    seen_texts: set[int] = set()
    seen_lines: set[int] = set()
    for document in documents:
        text_hash = _hash(document.text)
        if text_hash in seen_texts:
            continue
        seen_texts.add(text_hash)
        lines = [line for line in map(str.strip, document.text.split("\n")) if len(line) >= MIN_LINE_CHARACTERS]
        fresh = sum(len(line) for line in lines if hash(line) not in seen_lines)
        seen_lines.update(map(hash, lines))
        if fresh >= MIN_FRESH * sum(map(len, lines)):
            yield document


def _candidates() -> Iterator[Document]:
    for document in chain(_language_reference(), _readmes()):
        if is_prose(document.text):
            yield document
    yield from installed_docstrings()


def _language_reference() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield Document(f"help:{name}", text.strip())


def _readmes() -> Iterator[Document]:
    texts = {}
    for distribution in importlib.metadata.distributions():
        content = distribution.read_text("METADATA") or ""
        texts[f"readme:{distribution.name}"] = content.partition("\n\n")[2].strip()  # it follows the header fields
    for name, text in sorted(texts.items()):
        yield Document(name, text)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
