"""Chunks joined to blocks of whole records, and the places where a file may be cut."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.text import blocks
from data_prep.text.blocks import (
    LINES,
    PARAGRAPHS,
    Block,
    first_line,
    first_paragraph,
    joined,
    opened,
    split_lines,
    split_paragraphs,
)
from data_prep.text.inputs import InputFile, describe

contents = st.text(alphabet="ab \r\n\n\n", max_size=60).map(str.encode)


def chunks(content: bytes, size: int) -> Iterator[Block]:
    for start in range(0, len(content), size):
        chunk = content[start : start + size]
        yield Block(start, chunk, len(chunk))


def described(path: Path, content: bytes) -> InputFile:
    path.write_bytes(content)
    [file] = describe([[path]])
    return file


@given(content=contents, size=st.integers(1, 70), limit=st.integers(1, 30), paragraphs=st.booleans())
def test_blocks_follow_one_another_and_end_where_records_do(
    content: bytes, size: int, limit: int, paragraphs: bool
) -> None:
    found = joined(chunks(content, size), LINES, limit)
    if paragraphs:
        found = joined(found, PARAGRAPHS, limit)
    place = 0
    for block in filter(None, found):
        assert block.offset == place
        place += block.length
        assert content[:place].endswith(b"\n") or place == len(content)
        if block.is_too_long:
            assert block.content == content[block.offset :][:limit]
            assert block.length > limit
        elif block.content.strip():
            assert block.content.rstrip() == content[block.offset : place].rstrip()  # blanks without an end get one
    assert place == len(content)


@given(content=contents)
def test_records_are_cut_out_where_they_start(content: bytes) -> None:
    for split in (split_lines, split_paragraphs):
        records, starts = split(content)
        for record, start in zip(records, starts, strict=bool(records)):
            assert content[start:].startswith(record)
    assert b"\n".join(split_lines(content)[0]) == content.removesuffix(b"\n")
    assert sum(map(len, map(bytes.strip, content.split()))) == sum(
        len(word) for record in split_paragraphs(content)[0] for word in record.split()
    )


@given(content=contents, position=st.integers(0, 70), size=st.integers(1, 10))
def test_the_first_line_at_or_after_a_place(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, position: int, size: int
) -> None:
    position = min(position, len(content))
    file = described(tmp_path_factory.getbasetemp() / "cut.txt", content)
    starts = [start for start in range(len(content)) if not start or content[start - 1 : start] == b"\n"]
    expected = next((start for start in [*starts, len(content)] if start >= position), 0)
    with patch.object(blocks, "READ_BYTES", size), opened(file) as source:
        found = first_line(source, position, len(content))
        assert (len(content) if found is None else found) == expected
        place = first_paragraph(source, position, len(content), 5)
    place = len(content) if place is None else place
    if 0 < place < len(content):
        assert place >= position
        before = content[:place].split(b"\n")
        assert not before[-1]
        assert not before[-2].strip()


def test_a_search_does_not_read_beyond_its_piece(tmp_path: Path) -> None:
    file = described(tmp_path / "long.txt", b"x" * 10_000)
    with patch.object(blocks, "READ_BYTES", 100), opened(file) as source:
        assert first_line(source, 1_000, 2_000) is None
        assert source.position <= 2_100
        assert first_paragraph(source, 5_000, 6_000, 50) is None
        assert source.position <= 6_100


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    file = described(tmp_path / "a.txt", b"")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match=r"a\.txt cannot be read: No such file"), opened(file):
        pass
