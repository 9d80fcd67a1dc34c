"""A part of a text file as blocks of whole records, in bounded memory however long a record is.

Bytes are read in chunks; chunks are joined to blocks of whole lines, and these to blocks of whole paragraphs. Of a
record that is longer than the limit only the start is kept.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, BinaryIO, NamedTuple, cast

from data_prep.errors import DamagedFile, DataError
from data_prep.text.inputs import InputFile

READ_BYTES = 2**19  # of text in memory at a time, with what becomes of it; 4 MB, which no cache holds, cost 20 %
COMPRESSED_BYTES = 2**17
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

LEADING_BLANK_LINES = re.compile(rb"\s*\n")
BLANK_LINES = re.compile(rb"\n\s*\n")  # from the end of the line before; `(?:\s*\n)+` takes 100 bytes for each newline
PARAGRAPH_END = re.compile(rb"\n\s*(?:\n|\Z)")


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes that follow one another in a file.

    Attributes:
        offset: of the first one, in the decompressed file.
        content: the bytes. Of a record that is too long only the start, of one of white space only a newline.
        length: how many bytes of the file it stands for.
        is_too_long: it is one record, longer than the limit.
    """

    offset: int
    content: bytes
    length: int
    is_too_long: bool = False


Blocks = Iterator[Block | None]  # None: something was read, but no record is whole yet; a sign of life

Records = tuple[list[bytes], Iterator[int]]  # each record without its end, and where in the block they start


class Ends(NamedTuple):
    """What ends a record: the places behind the first and the last such end in a block, 0 if there is none."""

    first: Callable[[bytes], int]
    last: Callable[[bytes], int]


class OpenInput:
    """A text file that is open.

    Attributes:
        damage: why it cannot be decompressed any further; None as long as it can.
    """

    def __init__(self, file: InputFile, raw: BinaryIO) -> None:
        self._path, self._raw, self._is_plain = file.path, raw, not file.compression
        self._read, self._damages = _reading(raw, file.compression)
        self.damage: DamagedFile | None = None
        if file.compression and not file.size:
            self.damage = self._damaged("it is empty")

    @property
    def position(self) -> int:
        """Bytes of the file that were read, compressed ones of a compressed file."""
        return self._raw.tell()

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """The decompressed bytes from `start` to `stop`, a byte order mark left out; they end early at a damage.

        Args:
            start: other than 0 only in a file that is not compressed.
        """
        if self._is_plain:
            self._raw.seek(start)
        offset = start
        if not offset:
            mark = self._next(len(BYTE_ORDER_MARK) if stop is None else min(stop, len(BYTE_ORDER_MARK)))
            if mark and mark != BYTE_ORDER_MARK:
                yield Block(offset, mark, len(mark))
            offset += len(mark)
        while chunk := self._next(READ_BYTES if stop is None else min(READ_BYTES, stop - offset)):
            yield Block(offset, chunk, len(chunk))
            offset += len(chunk)

    def _next(self, size: int) -> bytes:
        """`size` bytes, which decompressors give in small parts; fewer only at the end, or before a damage."""
        parts: list[bytes] = []
        while size > 0 and self.damage is None:
            try:
                part = self._read(size)
            except self._damages as error:
                self.damage = self._damaged(str(error))
                break
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _damaged(self, reason: str) -> DamagedFile:
        return DamagedFile(f"{self._path} cannot be decompressed: {reason}. Copy or write it again.")


@contextmanager
def opened(file: InputFile) -> Iterator[OpenInput]:
    """The file, open; DataError if it cannot be read, in the block too."""
    try:
        with open(file.path, "rb", buffering=0) as raw:
            yield OpenInput(file, cast(BinaryIO, raw))
    except OSError as error:
        raise DataError(
            f"{file.path} cannot be read: {error.strerror or error}. Check the file and the disk."
        ) from error


def _reading(raw: BinaryIO, compression: str) -> tuple[Callable[[int], bytes], tuple[type[Exception], ...]]:
    """What reads some decompressed bytes, and the exceptions that mean damage."""
    if compression == "gz":
        from isal import igzip_lib

        new = partial(igzip_lib.IgzipDecompressor, flag=igzip_lib.DECOMP_GZIP)
        return _Decompressed(raw, new, padding=b"\0").read, (EOFError, cast(type[Exception], igzip_lib.error))
    if compression == "zst":
        from data_prep.zstd import LONG_WINDOW, ZstdDecompressor, ZstdError

        return _Decompressed(raw, partial(ZstdDecompressor, options=LONG_WINDOW), padding=b"").read, (
            EOFError,
            ZstdError,
        )
    return raw.read, ()


class _Decompressed:
    """The members of a .gz, or the frames of a .zst, one after the other; unlike the libraries' own files it gives all
    that there is before a damage.

    Args:
        new: makes a decompressor with the interface of `bz2.BZ2Decompressor`.
        padding: may follow a member.
    """

    def __init__(self, raw: BinaryIO, new: Callable[[], Any], padding: bytes) -> None:
        self._raw, self._new, self._padding = raw, new, padding
        self._decompressor = new()

    def read(self, size: int) -> bytes:
        """Some bytes, at most `size`; none at the end.

        Raises:
            EOFError: the file was cut.
        """
        while True:
            if self._decompressor.eof:
                content = self._decompressor.unused_data.lstrip(self._padding)
                while not content:
                    if not (more := self._raw.read(COMPRESSED_BYTES)):
                        return b""
                    content = more.lstrip(self._padding)
                self._decompressor = self._new()
            elif self._decompressor.needs_input:
                content = self._raw.read(COMPRESSED_BYTES)
                if not content:
                    raise EOFError("it ends in the middle")
            else:
                content = b""
            if found := self._decompressor.decompress(content, size):
                return cast(bytes, found)


def first_line(file: OpenInput, position: int, until: int) -> int | None:
    """Where the first line at or after `position` begins; None if none does before `until`."""
    if position <= 0:
        return 0
    for chunk in file.chunks(position - 1):
        if found := LINES.first(chunk.content):
            return chunk.offset + found
        if chunk.offset + chunk.length >= until:
            break
    return None


def first_paragraph(file: OpenInput, position: int, until: int, limit: int) -> int | None:
    """The place behind the first blank lines that begin at or after `position`; None if none do before `until`."""
    start = first_line(file, position, until)
    if not start:
        return start
    for block in joined(file.chunks(start), LINES, limit):
        if block is not None:
            if found := PARAGRAPHS.first(block.content):
                return _place(block, found)
            if block.offset + block.length >= until:
                break
    return None


def whole(chunks: Iterable[Block], limit: int) -> Blocks:
    """All bytes as one block."""
    record = _Record(limit)
    for chunk in chunks:
        record.add(chunk)
        yield None
    yield record.block()


def joined(blocks: Iterable[Block | None], ends: Ends, limit: int) -> Blocks:
    """Blocks of whole records, which may begin and end anywhere in `blocks`.

    Args:
        limit: bytes of a record; a longer one comes as a block of its own.
    """
    record = _Record(limit)
    for block in blocks:
        if block is None:
            yield None
            continue
        begin, end = 0, ends.last(block.content)
        if end and record.is_too_long:
            begin = ends.first(block.content)
            record.add(_part(block, 0, begin))
            yield record.block()
            record = _Record(limit)
        if begin < end:
            yield record.followed_by(block, begin, end)
            record = _Record(limit)
        if end < len(block.content):
            record.add(_part(block, end, len(block.content)))
        if not end:
            yield None
    if record.length:
        yield record.block()


class _Record:
    """The start of a record whose end is not read yet."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._offset = self._kept = self.length = 0
        self._parts: list[bytes] = []
        self._is_blank, self._ends_line = True, False

    @property
    def is_too_long(self) -> bool:
        """Whether it is longer than the limit without the end of its last line."""
        return self.length - self._ends_line > self._limit

    def add(self, part: Block) -> None:
        """Go on with `part`; no more than the limit is kept."""
        if not self.length:
            self._offset = part.offset
        kept = part.content[: max(self._limit + 1 - self._kept, 0)]
        self._parts.append(kept)
        self._kept += len(kept)
        self.length += part.length
        self._is_blank = self._is_blank and not part.is_too_long and part.content.isspace()
        self._ends_line = part.content.endswith(b"\n")

    def block(self) -> Block:
        """All of it, or as much as was kept."""
        if self._is_blank:
            return Block(self._offset, b"\n", self.length)
        content = b"".join(self._parts)
        if self.is_too_long:
            return Block(self._offset, content[: self._limit], self.length, is_too_long=True)
        return Block(self._offset, content, self.length)

    def followed_by(self, block: Block, begin: int, end: int) -> Block:
        """It and the records that come after it, which are a part of `block`."""
        start = self._offset if self.length else _place(block, begin)
        content = b"".join([*self._parts, memoryview(block.content)[begin:end]])  # copies once
        return Block(start, content, _place(block, end) - start)


def _place(block: Block, index: int) -> int:
    """Where in the file an index of the content is; its end is that of what the block stands for."""
    return block.offset + (block.length if index == len(block.content) else index)


def _part(block: Block, begin: int, end: int) -> Block:
    start = _place(block, begin)
    return Block(start, block.content[begin:end], _place(block, end) - start, block.is_too_long)


def _first_blank(content: bytes) -> int:
    found = LEADING_BLANK_LINES.match(content) or BLANK_LINES.search(content)
    return found.end() if found else 0


def _last_blank(content: bytes) -> int:
    found = LEADING_BLANK_LINES.match(content)
    end = found.end() if found else 0
    # Usual blank lines are found from behind, at once; what follows the last of them may hold others with spaces.
    for found in BLANK_LINES.finditer(content, max(content.rfind(b"\n\n"), 0)):
        end = found.end()
    return end


LINES = Ends(lambda content: content.find(b"\n") + 1, lambda content: content.rfind(b"\n") + 1)
PARAGRAPHS = Ends(_first_blank, _last_blank)  # in whole lines


def split_lines(content: bytes) -> Records:
    """Whole lines."""
    records = content.split(b"\n")
    if not records[-1]:
        records.pop()
    return records, accumulate((len(record) + 1 for record in records[:-1]), initial=0)


def split_paragraphs(content: bytes) -> Records:
    """The runs of lines that are not blank, in whole lines."""
    records, starts = [], []
    leading = LEADING_BLANK_LINES.match(content)
    start = leading.end() if leading else 0
    for end in PARAGRAPH_END.finditer(content, start):
        records.append(content[start : end.start()])
        starts.append(start)
        start = end.end()
    if start < len(content):
        records.append(content[start:])
        starts.append(start)
    return records, iter(starts)


def no_split(content: bytes) -> Records:
    """All of it as one record."""
    return [content], iter([0])
