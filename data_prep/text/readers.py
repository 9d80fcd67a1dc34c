"""Units of input to batches of documents: every record is counted, whatever is wrong with it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from data_prep.accounting import Offender
from data_prep.errors import DamagedFile, DataError
from data_prep.text import blocks, parquet
from data_prep.text.blocks import LINES, PARAGRAPHS, Block, Blocks, OpenInput
from data_prep.text.document import BadRecord, Batch, Document
from data_prep.text.inputs import InputFile, describe
from data_prep.text.parsing import (
    BadRecordError,
    Fields,
    all_texts,
    decode,
    decode_lines,
    json_parser,
    line_parser,
    metadata_of,
    paragraph_parser,
    parse_json,
    plain_parser,
    text_of,
)
from data_prep.text.units import Piece
from data_prep.tokenizer.special_tokens import SpecialNames

MAX_RECORD_BYTES = 16 * 2**20
MAX_RECORD_BYTES_OF_ONE_FILE = 2**30  # where there is no option to raise it
MAX_COUNTED_BYTES = 2**30  # up to where the line of a byte offset is counted for a message
GROUP = 16  # records that are parsed at once where one of many is bad

REPAIR = "Repair or remove the record"
LEAVE_OUT = f"{REPAIR}, or count and leave out such ones with --on-bad-record skip or quarantine."
REMEDIES = {
    "missing_key": "Give the right field with --text-key. ",
    "too_long": "Raise the limit, or cut a .txt by --txt-documents line or block. ",
    "special_token": "Choose --special-in-text split (it stays text) or encode (it becomes the token). ",
}

TxtDocuments = Literal["file", "line", "block", "part"]
Parsed = tuple[str, dict[str, Any] | None]  # a text, and what is kept beside it


class Checksum(Protocol):
    def update(self, content: bytes) -> object:
        """Take in more of what was read."""


class NoChecksum:
    def update(self, content: bytes) -> None:
        pass


class Format(NamedTuple):
    """How a block becomes texts: it is cut into records, and these are parsed all at once or, if one is bad, singly."""

    split: Callable[[bytes], blocks.Records]
    parse_all: Callable[[list[bytes]], list[str]] | None
    parse: Callable[[bytes], Parsed]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How records are read.

    Attributes:
        txt_documents: what one document of a .txt is: all of the file, a line, what stands between blank lines, or
            (part) as many lines as are read at once.
        max_record_bytes: a longer record is bad, unless it is white space; this bounds the memory.
        keeps_damaged: what cannot be read of a file is one bad record after those that could be; of a .parquet, a
            bad record for each row.
        refused: names that no text may spell.
    """

    fields: Fields = field(default_factory=Fields)
    txt_documents: TxtDocuments = "file"
    max_record_bytes: int = MAX_RECORD_BYTES
    keeps_damaged: bool = False
    refused: SpecialNames = field(default_factory=lambda: SpecialNames(()))

    def read(self, file: InputFile, piece: Piece, checksum: Checksum | None = None) -> Iterator[Batch]:
        """The records that start in a piece of a file, about half a megabyte at a time.

        Args:
            checksum: takes in what was read: the text, or the columns of a .parquet.

        Raises:
            DataError: the file cannot be read, or is damaged.
        """
        read = self._read_parquet if file.kind == "parquet" else self._read_text
        return read(file, piece, checksum or NoChecksum())

    def _read_text(self, file: InputFile, piece: Piece, checksum: Checksum) -> Iterator[Batch]:
        form = self._format(file)
        with blocks.opened(file) as source:
            start, stop = self._range(file, source, piece)
            end, weight, lost = start, 0, None
            for block in self._blocks(file, _hashed(source.chunks(start, stop), checksum)):
                if source.damage is not None and block is not None and not self._is_finished(file, block):
                    lost = block
                    continue
                batch = self._batch()
                if block is not None:
                    self._parse(batch, file, form, block)
                    end = block.offset + block.length
                batch.weight = (source.position - start) * piece.weight // max(piece.stop - piece.start, 1) - weight
                weight += batch.weight
                yield batch
            if source.damage is not None:
                yield self._damaged(file, source.damage, lost or Block(end, b"", 0))

    def _range(self, file: InputFile, source: OpenInput, piece: Piece) -> tuple[int, int | None]:
        """Where the first record of the piece begins, and the first behind it; both neighbours of a cut agree."""
        if file.compression or (file.kind == "txt" and self.txt_documents == "file"):
            return 0, None
        start = self._first(file, source, piece.start, piece.stop)
        if start is None:
            return piece.stop, piece.stop
        stop = self._first(file, source, piece.stop, file.size)
        return start, file.size if stop is None else stop

    def _first(self, file: InputFile, source: OpenInput, position: int, until: int) -> int | None:
        if file.kind == "txt" and self.txt_documents == "block":
            return blocks.first_paragraph(source, position, until, self.max_record_bytes)
        return blocks.first_line(source, position, until)

    def _blocks(self, file: InputFile, chunks: Iterable[Block]) -> Blocks:
        if file.kind == "txt" and self.txt_documents == "file":
            return blocks.whole(chunks, self.max_record_bytes)
        lines = blocks.joined(chunks, LINES, self.max_record_bytes)
        if file.kind == "txt" and self.txt_documents == "block":
            return blocks.joined(lines, PARAGRAPHS, self.max_record_bytes)
        return lines

    def _is_finished(self, file: InputFile, block: Block) -> bool:
        """Whether a block ends where a record ends, so that a damage behind it took nothing of it."""
        if file.kind == "txt" and self.txt_documents == "file":
            return False
        ends = PARAGRAPHS if file.kind == "txt" and self.txt_documents == "block" else LINES
        return block.is_too_long or ends.last(block.content) == len(block.content)

    def _format(self, file: InputFile) -> Format:
        if file.kind == "jsonl":
            return Format(blocks.split_lines, json_parser(self.fields), self._json_record)
        if self.txt_documents == "line":
            return Format(blocks.split_lines, line_parser, lambda raw: (decode_lines(raw), None))
        if self.txt_documents == "block":
            return Format(blocks.split_paragraphs, paragraph_parser, lambda raw: (decode_lines(raw), None))
        return Format(blocks.no_split, plain_parser, lambda raw: (decode(raw), None))

    def _json_record(self, line: bytes) -> Parsed:
        record = parse_json(line)
        return text_of(record, self.fields), metadata_of(record, self.fields)

    def _parse(self, batch: Batch, file: InputFile, form: Format, block: Block) -> None:
        """Add the records of a block to the batch."""
        if block.is_too_long:
            _reject(batch, file, block.offset, self._too_long(), block.content)
            return
        records, starts = form.split(block.content)
        if self._add_good(batch, form, records):
            return
        for first in range(0, len(records), GROUP):
            group, places = records[first : first + GROUP], list(islice(starts, GROUP))
            if self._add_good(batch, form, group):
                continue
            for raw, place in zip(group, places, strict=True):
                try:
                    self._add(batch, *self._parse_one(form, raw))
                except BadRecordError as error:
                    _reject(batch, file, block.offset + place, error, raw[: self.max_record_bytes])

    def _add_good(self, batch: Batch, form: Format, records: list[bytes]) -> bool:
        """Add records, if nothing is wrong with any of them; nothing is wrong with an empty one."""
        if form.parse_all is None or max(map(len, records), default=0) > self.max_record_bytes:
            return False
        num_empty = records.count(b"")
        try:
            texts = form.parse_all([record for record in records if record] if num_empty else records)
        except (ValueError, KeyError, TypeError):
            return False
        if not self._add_all(batch, texts):
            return False
        batch.counters.lines += num_empty
        batch.counters.empty += num_empty
        return True

    def _parse_one(self, form: Format, raw: bytes) -> Parsed:
        if not raw or raw.isspace():
            return "", None
        if len(raw) > self.max_record_bytes:
            raise self._too_long()
        return form.parse(raw)

    def _read_parquet(self, file: InputFile, piece: Piece, checksum: Checksum) -> Iterator[Batch]:
        with parquet.open_parquet(file.path) as opened:
            parquet.check_columns(opened, file.path, self.fields.columns, self.fields.text_keys)
            row = parquet.first_row(opened, piece.start)
            first, num_rows = row, parquet.first_row(opened, piece.stop) - row
            weight = 0
            for group in range(piece.start, piece.stop):
                for batch in self._read_rows(file, opened, group, row, checksum):
                    row += batch.counters.lines
                    batch.weight = piece.weight * (row - first) // num_rows - weight
                    weight += batch.weight
                    yield batch

    def _read_rows(self, file: InputFile, opened: Any, group: int, first: int, checksum: Checksum) -> Iterator[Batch]:
        """The rows of a row group; `first` is the number of its first row in the file."""
        columns, num_rows, done = self.fields.columns, opened.metadata.row_group(group).num_rows, 0
        try:
            with parquet.reading(file.path):
                for content in parquet.column_bytes(opened, file.path, group, columns):
                    checksum.update(content)
                for arrays in parquet.row_batches(opened, group, columns):
                    lengths = parquet.text_bytes(arrays[: len(self.fields.text_keys)])
                    for rows in parquet.portions(lengths):
                        batch = self._batch()
                        self._parse_rows(batch, file, [array[rows] for array in arrays], lengths[rows], first + done)
                        done += batch.counters.lines
                        yield batch
                if done < num_rows:
                    raise OSError(f"row group {group} holds {done} of its {num_rows} rows")
        except DamagedFile as error:
            yield self._damaged(file, error, Block(first + done, b"", num_rows - done), num_rows - done)

    def _parse_rows(self, batch: Batch, file: InputFile, arrays: Sequence[Any], lengths: Any, first: int) -> None:
        """Add rows to the batch, whose texts have these lengths in bytes."""
        is_too_long = lengths > self.max_record_bytes
        if is_too_long.all():  # one that is larger than memory may be is not made a text of Python
            lists: list[list[Any]] = [[None] * len(lengths)] * len(arrays)
        else:
            lists = [parquet.values(array) for array in arrays]
        if self._add_good_rows(batch, lists, is_too_long):
            return
        for begin in range(0, len(lengths), GROUP):
            group = slice(begin, begin + GROUP)
            if self._add_good_rows(batch, [values[group] for values in lists], is_too_long[group]):
                continue
            for place in range(begin, min(begin + GROUP, len(lengths))):
                try:
                    self._add(batch, *self._parse_row([values[place] for values in lists], is_too_long[place]))
                except BadRecordError as error:
                    texts = arrays[: len(self.fields.text_keys)]
                    raw = b"".join(parquet.start_of(array, place, self.max_record_bytes) for array in texts)
                    _reject(batch, file, first + place, error, raw[: self.max_record_bytes])

    def _add_good_rows(self, batch: Batch, lists: list[list[Any]], is_too_long: Any) -> bool:
        return self.fields.is_plain and not is_too_long.any() and self._add_all(batch, lists[0])

    def _parse_row(self, row: list[Any], is_too_long: bool) -> Parsed:
        if is_too_long:
            raise self._too_long()
        record = dict(zip(self.fields.columns, row, strict=True))
        return text_of(record, self.fields), metadata_of(record, self.fields)

    def _batch(self) -> Batch:
        return Batch(metadata=[] if self.fields.metadata_keys else None)

    def _add_all(self, batch: Batch, texts: list[Any]) -> bool:
        """Add texts, if nothing is wrong with any of them."""
        if not all_texts(texts) or self.refused.holds_special(texts):
            return False
        batch.texts += texts
        batch.counters.lines += len(texts)
        batch.counters.documents += len(texts)
        if batch.metadata is not None:  # a .txt has none
            batch.metadata += [dict.fromkeys(self.fields.metadata_keys) for _ in texts]
        return True

    def _add(self, batch: Batch, text: str, metadata: dict[str, Any] | None) -> None:
        if self.refused.holds_special([text]):
            raise BadRecordError("special_token", f"it spells {self.refused.first_name(text)!r}")
        batch.counters.lines += 1
        if not text:
            batch.counters.empty += 1
            return
        batch.counters.documents += 1
        batch.texts.append(text)
        if batch.metadata is not None:
            batch.metadata.append(metadata or dict.fromkeys(self.fields.metadata_keys))

    def _damaged(self, file: InputFile, error: DamagedFile, lost: Block, count: int = 1) -> Batch:
        if not self.keeps_damaged:
            raise error
        batch = self._batch()
        _reject(batch, file, lost.offset, BadRecordError("damaged_file", str(error)), lost.content, count)
        return batch

    def _too_long(self) -> BadRecordError:
        return BadRecordError("too_long", f"longer than {self.max_record_bytes} bytes (--max-record-bytes)")


def read_documents(
    path: Path, *, text_key: str = "text", on_bytes: Callable[[int], object] = int
) -> Iterator[Document]:
    """The documents of one file, in its order; empty texts are left out.

    A long .txt comes as several documents, each of about half a megabyte of whole lines.

    Args:
        text_key: the field of a `.jsonl` or `.parquet` record that holds the text.
        on_bytes: told how many bytes of the file were read.

    Raises:
        DataError: the file cannot be read, or a record is not what it must be; names the file and line.
    """
    reader = Reader(
        fields=Fields(text_key=text_key), txt_documents="part", max_record_bytes=MAX_RECORD_BYTES_OF_ONE_FILE
    )
    [file] = describe([[path]])
    stop = len(file.row_groups) if file.kind == "parquet" else file.size
    for batch in reader.read(file, Piece(0, 0, stop, file.size)):
        on_bytes(batch.weight)
        if batch.bad:
            raise DataError(explain(batch.bad[0].offender, file, remedy=f"{REPAIR}."))
        for text in batch.texts:
            yield Document(str(path), text)


def explain(offender: Offender, file: InputFile, *, remedy: str | None = None) -> str:
    """A sentence about a bad record: the place, what is wrong, what to do.

    Args:
        remedy: for any kind of bad record; None names all that can be done about it in a job.
    """
    if file.kind == "parquet":
        place = f"{offender.file}, row {offender.offset}"
    else:
        place = f"{offender.file}{_line_of(file, offender.offset)}, byte {offender.offset}"
    if remedy is None:
        remedy = REMEDIES.get(offender.kind, "") + LEAVE_OUT
    elif offender.kind == "missing_key":
        remedy = REMEDIES["missing_key"] + remedy
    return f"{place}: {offender.kind.replace('_', ' ')}: {offender.detail}. {remedy}"


def _line_of(file: InputFile, offset: int) -> str:
    """`:NUMBER` of the line at a byte offset, where counting does not take long."""
    if offset > MAX_COUNTED_BYTES:
        return ""
    count = 1
    try:
        with blocks.opened(file) as source:
            for chunk in source.chunks():
                count += chunk.content.count(b"\n", 0, max(offset - chunk.offset, 0))
                if chunk.offset + chunk.length >= offset:
                    break
    except DataError:
        return ""
    return f":{count}"


def _hashed(chunks: Iterable[Block], checksum: Checksum) -> Iterator[Block]:
    for chunk in chunks:
        checksum.update(chunk.content)
        yield chunk


def _reject(batch: Batch, file: InputFile, offset: int, error: BadRecordError, raw: bytes, count: int = 1) -> None:
    batch.counters.lines += count
    batch.counters.bad[error.kind] = batch.counters.bad.get(error.kind, 0) + count
    batch.bad.append(BadRecord(Offender(file=file.path, offset=offset, kind=error.kind, detail=error.detail), raw))
