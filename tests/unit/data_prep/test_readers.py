"""Files to documents, and messages that name file and line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.document import Document
from data_prep.errors import DataError
from data_prep.readers import find_inputs, read_documents, size_in_bytes


def test_jsonl(jsonl: Callable[..., Path]) -> None:
    path = jsonl(b'{"body": "one\\n", "text": 1}', b"", b'{"body": ""}', '{"body": "é"}'.encode())
    seen: list[int] = []
    documents = list(read_documents(path, text_key="body", on_bytes=seen.append))
    assert documents == [Document(f"{path}:1", "one\n"), Document(f"{path}:3", ""), Document(f"{path}:4", "é")]
    assert sum(seen) == path.stat().st_size


def test_txt_is_one_document_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes("  first\r\nsecond é\n".encode())
    assert list(read_documents(path)) == [Document(str(path), "  first\r\nsecond é\n")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a', "is not JSON"),
        (b"nonsense", "is not JSON"),
        (b'{"text": "\xff"}', "is not JSON: .*UTF-8"),
        (b'{"text": "\\ud800"}', "is not JSON: .*surrogate"),
        (b'["text"]', "holds a JSON list; a record must be an object with 'text'"),
        (b'{"body": "a", "id": 1}', r"has no field 'text' \(fields: body, id\). Give the right one with --text-key"),
        (b'{"text": null}', "'text' is a NoneType, not a string"),
        (b'{"text": 7}', "'text' is a int, not a string"),
    ],
)
def test_a_bad_record_names_its_line(jsonl: Callable[..., Path], line: bytes, message: str) -> None:
    path = jsonl(b'{"text": "good"}', line, b'{"text": "good"}')
    with pytest.raises(DataError, match=rf"input\.jsonl:2:? {message}"):
        list(read_documents(path))


@given(content=st.binary(max_size=60))
def test_no_bytes_do_anything_but_read_or_raise_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    for name in ("fuzz.jsonl", "fuzz.txt"):
        path = tmp_path_factory.mktemp("fuzz") / name
        path.write_bytes(content)
        message = ""
        try:
            texts = [document.text for document in read_documents(path)]
        except DataError as error:
            message = str(error)
        assert str(path) in message or all(isinstance(text, str) for text in texts)


def test_txt_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"one\ntwo \xe9\n")
    with pytest.raises(DataError, match=r"latin.txt:2 is not UTF-8 \(byte 0xe9 at offset 8\)"):
        list(read_documents(path))


def test_inputs_are_found_once_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_inputs([f"{tmp_path}/b.txt", f"{tmp_path}/*", f"{tmp_path}/**/*.jsonl"])
    assert [path.name for path in found] == ["b.txt", "a.txt", "c.jsonl"]


def test_what_is_no_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="matches no file"):
        find_inputs([f"{tmp_path}/*.txt"])
    with pytest.raises(DataError, match="matches no file"):
        find_inputs([str(tmp_path)])
    (tmp_path / "a.csv").touch()
    with pytest.raises(DataError, match=r"a.csv is of no kind .*\.jsonl, \.txt"):
        find_inputs([f"{tmp_path}/a.csv"])
    for read in (size_in_bytes, lambda path: list(read_documents(path))):
        with pytest.raises(DataError, match="cannot be read: No such file"):
            read(tmp_path / "missing.txt")
