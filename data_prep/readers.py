"""Text files to documents: `.jsonl` (one JSON object a line) and `.txt` (one document a file)."""

import glob
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import orjson

from data_prep.document import Document
from data_prep.errors import DataError

SUFFIXES = (".jsonl", ".txt")


def find_inputs(patterns: Sequence[str]) -> list[Path]:
    """The files that the glob patterns name: in the order of the patterns, sorted within each, each file once.

    Raises:
        DataError: a pattern matches no file, or a file is of no kind that can be read.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        paths = [path for path in map(Path, sorted(glob.glob(pattern, recursive=True))) if path.is_file()]
        if not paths:
            raise DataError(f"--input {pattern} matches no file. Check the path; quote a pattern that holds * or **.")
        found.update(dict.fromkeys(paths))
    for path in found:
        if path.suffix not in SUFFIXES:
            raise DataError(f"--input {path} is of no kind that can be read ({', '.join(SUFFIXES)}).")
    return list(found)


def size_in_bytes(path: Path) -> int:
    """The size of an input file; DataError if there is none."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check the path.") from error


def read_documents(
    path: Path, *, text_key: str = "text", on_bytes: Callable[[int], object] = int
) -> Iterator[Document]:
    """The documents of one file, in its order. Blank lines of a `.jsonl` are not records.

    Args:
        text_key: the field of a `.jsonl` record that holds the text.
        on_bytes: told how many bytes of the file were read, a record at a time.

    Raises:
        DataError: the file cannot be read, or a record is not what it must be; names the file and line.
    """
    try:
        if path.suffix == ".jsonl":
            yield from _read_jsonl(path, text_key, on_bytes)
        else:
            yield _read_txt(path, on_bytes)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _read_jsonl(path: Path, text_key: str, on_bytes: Callable[[int], object]) -> Iterator[Document]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            on_bytes(len(line))
            if not line.isspace():
                place = f"{path}:{number}"
                yield Document(place, _text_of(line, text_key, place))


def _text_of(line: bytes, text_key: str, place: str) -> str:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{place} is not JSON: {error}. Repair or remove the line.") from error
    if not isinstance(record, dict):
        raise DataError(f"{place} holds a JSON {type(record).__name__}; a record must be an object with {text_key!r}.")
    if text_key not in record:
        keys = ", ".join(sorted(record)[:8]) or "none"
        raise DataError(f"{place} has no field {text_key!r} (fields: {keys}). Give the right one with --text-key.")
    text = record[text_key]
    if not isinstance(text, str):
        raise DataError(f"{place}: {text_key!r} is a {type(text).__name__}, not a string. Repair or remove the line.")
    return text


def _read_txt(path: Path, on_bytes: Callable[[int], object]) -> Document:
    raw = path.read_bytes()
    on_bytes(len(raw))
    try:
        return Document(str(path), raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line} is not UTF-8 (byte 0x{raw[error.start]:02x} at offset {error.start}). Convert the file."
        ) from error
