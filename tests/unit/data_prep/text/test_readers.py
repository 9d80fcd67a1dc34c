"""Readers against a slow, plain one: the same documents, counts and places, wherever a file is cut and read."""

import gzip
import json
import math
import random
import re
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from data_prep.accounting import BAD_KINDS, Counters, Offender
from data_prep.errors import DataError
from data_prep.text import blocks
from data_prep.text.document import Document
from data_prep.text.inputs import InputFile, describe
from data_prep.text.parsing import Fields
from data_prep.text.readers import MAX_RECORD_BYTES, Reader, explain, read_documents
from data_prep.text.units import Piece, plan_units
from data_prep.tokenizer.special_tokens import SpecialNames
from data_prep.zstd import CompressionParameter, compress

BOM = b"\xef\xbb\xbf"
LINES = [
    b'{"text": "good"}',
    b'{"text": "also good", "id": 1}',
    '{"text": "é\U0001f600"}'.encode(),
    b'{"text": "twice", "text": "last one counts"}',
    b'{"text": "x", "number": NaN, "huge": 123456789012345678901234567890}',
    b'  {"text": " spaces "}\t',
    b'{"text": " "}',
    b'{"text": ""}',
    b'{"text": null}',
    b'{"text": 7}',
    b'{"body": "x"}',
    b'{"text": "\\ud800"}',
    b'{"text": "x", "other": "\\ud800"}',
    b'{"text": "\xff"}',
    b'{"text": "\x00"}',
    b'{"text": "\\u0000"}',
    b'{"text": "a',
    b'["text"]',
    b'"text"',
    b"null",
    b"12",
    b"[" * 2000,
    b"",
    b" \t\r\x0b\x0c",
    b"\r",
    b"plain",
    b"  indented \r",
    b"\x00",
    b"\xff\xfe",
    BOM,
    b"a" * 30,
    b" " * 30,
]
pieces_of_lines = st.sampled_from(LINES) | st.binary(max_size=12) | st.text(max_size=8).map(str.encode)
contents = st.builds(
    lambda mark, lines, ends, last: mark + b"".join(line + end for line, end in zip(lines, ends, strict=False)) + last,
    mark=st.sampled_from([b"", BOM]),
    lines=st.lists(pieces_of_lines, max_size=14),
    ends=st.lists(st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n", b"\n \n", b"\r\n\t\r\n", b""]), max_size=14),
    last=pieces_of_lines,
)
limits = st.sampled_from([1, 2, 3, 10, 20, 29, 30, 31, 10**6])
sizes = st.integers(1, 40) | st.just(10**6)
modes = st.sampled_from(["file", "line", "block"])


@dataclass
class Result:
    texts: list[str] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    bad: list[tuple[int, str, bytes]] = field(default_factory=list)

    def add(self, offset: int, raw: bytes, limit: int, parse: Callable[[bytes], str]) -> None:
        """The plain reader's rule: blank is empty, long is bad, and `parse` raises the kind of what is bad."""
        self.counters.lines += 1
        try:
            if raw.strip() and len(raw) > limit:
                raise LookupError("too_long")
            text = parse(raw) if raw.strip() else ""
        except LookupError as error:
            [kind] = error.args
            self.counters.bad[kind] = self.counters.bad.get(kind, 0) + 1
            self.bad.append((offset, kind, raw[:limit]))
            return
        if text:
            self.texts.append(text)
        self.counters.documents += bool(text)
        self.counters.empty += not text


def plain_jsonl(content: bytes, limit: int) -> Result:
    result = Result()
    for offset, line in lines_of(content):
        result.add(offset, line, limit, text_of_line)
    return result


def plain_txt(content: bytes, limit: int, mode: str) -> Result:
    result = Result()
    lines = lines_of(content)
    if mode == "line":
        for offset, line in lines:
            result.add(offset, line, limit, lambda raw: utf8(raw.removesuffix(b"\r")))
    elif mode == "block":
        paragraphs: list[tuple[int, list[bytes]]] = []
        was_blank = True
        for offset, line in lines:
            if line.strip() and was_blank:
                paragraphs.append((offset, [line]))
            elif line.strip():
                paragraphs[-1][1].append(line)
            was_blank = not line.strip()
        for offset, paragraph in paragraphs:
            result.add(offset, b"\n".join(paragraph), limit, lambda raw: utf8(raw.removesuffix(b"\r")))
    else:
        start = len(BOM) if content.startswith(BOM) else 0
        result.add(start, content[start:], limit, utf8)
    return result


def lines_of(content: bytes) -> list[tuple[int, bytes]]:
    start = len(BOM) if content.startswith(BOM) else 0
    found = []
    while start < len(content):
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        found.append((start, content[start:end]))
        start = end + 1
    return found


def text_of_line(line: bytes) -> str:
    text = utf8(line)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise LookupError("malformed_json") from None
    if not isinstance(record, dict):
        raise LookupError("not_an_object")
    if "text" not in record:
        raise LookupError("missing_key")
    if record["text"] is None:
        raise LookupError("null")
    if not isinstance(record["text"], str):
        raise LookupError("not_a_string")
    if any(0xD800 <= ord(character) < 0xE000 for character in record["text"]):
        raise LookupError("invalid_utf8")
    return str(record["text"])


def utf8(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise LookupError("invalid_utf8") from None


def described(path: Path, content: bytes) -> InputFile:
    path.write_bytes(content)
    [file] = describe([[path]])
    return file


def read(file: InputFile, reader: Reader, *, unit_bytes: int = 10**9, checksum: Any = None) -> Result:
    """What the units of one file hold together."""
    result = Result()
    for unit in plan_units([file], unit_bytes=unit_bytes, whole_txt=reader.txt_documents == "file"):
        for piece in unit.pieces:
            for batch in reader.read(file, piece, checksum):
                assert batch.counters.is_complete()
                assert batch.counters.documents == len(batch.texts)
                result.texts += batch.texts
                result.counters.add(batch.counters)
                result.bad += [(bad.offender.offset, bad.offender.kind, bad.raw) for bad in batch.bad]
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(content=contents, unit_bytes=sizes, read_bytes=sizes, limit=limits)
@example(content=BOM + b'{"text": "a"}\n', unit_bytes=2, read_bytes=1, limit=100)
@example(content=b" " * 40 + b"\n" + b"b" * 40 + b"\n\n\n", unit_bytes=7, read_bytes=5, limit=10)
@example(content=b'{"text": "a"}\n{"text": "b"}\n', unit_bytes=14, read_bytes=100, limit=100)
def test_jsonl_is_read_as_by_a_plain_reader(
    folder: Path, content: bytes, unit_bytes: int, read_bytes: int, limit: int
) -> None:
    file = described(folder / "a.jsonl", content)
    with patch.object(blocks, "READ_BYTES", read_bytes):
        found = read(file, Reader(max_record_bytes=limit), unit_bytes=unit_bytes)
    assert found == plain_jsonl(content, limit)
    for offset, kind, raw in found.bad:
        assert content[offset:].startswith(raw)
        assert kind in BAD_KINDS


@given(content=contents, unit_bytes=sizes, read_bytes=sizes, limit=limits, mode=modes)
@example(content=b"a\n\n" + b" " * 40 + b"\nb", unit_bytes=3, read_bytes=3, limit=10, mode="block")
@example(content=b"abc\n\nab\nc\n   ", unit_bytes=100, read_bytes=4, limit=3, mode="block")
@example(content=b"abc\r\n \r\nd\x0c\n\x0c\n\x0ce", unit_bytes=100, read_bytes=100, limit=100, mode="block")
def test_txt_is_read_as_by_a_plain_reader(
    folder: Path, content: bytes, unit_bytes: int, read_bytes: int, limit: int, mode: Any
) -> None:
    file = described(folder / "a.txt", content)
    with patch.object(blocks, "READ_BYTES", read_bytes):
        found = read(file, Reader(max_record_bytes=limit, txt_documents=mode), unit_bytes=unit_bytes)
    assert found == plain_txt(content, limit, mode)


@given(content=contents, read_bytes=sizes, cuts=st.lists(st.integers(0, 200), max_size=3), limit=limits, mode=modes)
def test_compressed_files_are_read_like_plain_ones(
    folder: Path, content: bytes, read_bytes: int, cuts: list[int], limit: int, mode: Any
) -> None:
    bounds = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    members = [content[start:stop] for start, stop in pairwise(bounds)]
    for kind in ("jsonl", "txt"):
        reader = Reader(max_record_bytes=limit, txt_documents=mode)
        expected = plain_jsonl(content, limit) if kind == "jsonl" else plain_txt(content, limit, mode)
        for name, compressed in (("gz", gzip.compress), ("zst", compress)):
            file = described(folder / f"a.{kind}.{name}", b"".join(map(compressed, members)))
            with patch.object(blocks, "READ_BYTES", read_bytes):
                assert read(file, reader) == expected, name


@given(content=contents, share=st.floats(0, 1, exclude_max=True), read_bytes=sizes, name=st.sampled_from(["gz", "zst"]))
@example(content=b' \t\r\x0b\x0c\n{"text": " "}', share=0.5, read_bytes=1_000_000, name="zst")
def test_a_cut_file_is_never_silent(folder: Path, content: bytes, share: float, read_bytes: int, name: str) -> None:
    whole = (gzip.compress if name == "gz" else compress)(content)
    file = described(folder / f"cut.jsonl.{name}", whole[: int(share * len(whole))])
    expected = plain_jsonl(content, 10**6)
    with patch.object(blocks, "READ_BYTES", read_bytes):
        found = read(file, Reader(keeps_damaged=True))
        with pytest.raises(DataError, match=rf"cut\.jsonl\.{name} cannot be decompressed: .*\. Copy or write it again"):
            read(file, Reader())
    *before, (offset, kind, raw) = found.bad
    assert kind == "damaged_file"
    assert content[offset:].startswith(raw) or not raw.strip()
    starts = {0, len(content)} | {start for start, _ in lines_of(content)}
    # Of a blank line that was cut, nothing is left to name: then the damage is where its bytes end.
    assert offset in starts or not content[max(start for start in starts if start < offset) : offset].strip()
    assert found.texts == expected.texts[: len(found.texts)]
    assert before == expected.bad[: len(before)]
    assert found.counters.lines == 1 + sum(start < offset for start, _ in lines_of(content))


@given(content=contents, place=st.integers(0, 10**6), bit=st.integers(0, 7), name=st.sampled_from(["gz", "zst"]))
def test_an_overwritten_byte_is_noticed_by_its_checksum(
    folder: Path, content: bytes, place: int, bit: int, name: str
) -> None:
    whole = (
        gzip.compress(content) if name == "gz" else compress(content, options={CompressionParameter.checksum_flag: 1})
    )
    flipped = bytearray(whole)
    flipped[place % len(whole)] ^= 1 << bit
    found = read(described(folder / f"flip.jsonl.{name}", bytes(flipped)), Reader(keeps_damaged=True))
    # A name or a time in the header may change.
    assert "damaged_file" in found.counters.bad or found == plain_jsonl(content, 10**8)


@given(content=contents, read_bytes=sizes, limit=limits, mode=modes)
def test_the_checksum_takes_in_every_byte_and_nothing_else(
    folder: Path, content: bytes, read_bytes: int, limit: int, mode: Any
) -> None:
    content = content.removeprefix(BOM) + b"."

    def checksum(content: bytes, unit_bytes: int = 10**9) -> str:
        found = xxhash.xxh3_128()
        reader = Reader(max_record_bytes=limit, txt_documents=mode)
        read(described(folder / "sum.txt", content), reader, unit_bytes=unit_bytes, checksum=found)
        return str(found.hexdigest())

    with patch.object(blocks, "READ_BYTES", read_bytes):
        expected = checksum(content)
        assert checksum(content, unit_bytes=read_bytes) == expected
    assert expected == xxhash.xxh3_128(content.removeprefix(BOM)).hexdigest()


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz", "a.txt.zst"])
def test_weights_add_up_to_what_was_planned(tmp_path: Path, name: str) -> None:
    content = b'{"text": "some text"}\n' * 5000
    packed = {"gz": gzip.compress, "zst": compress}.get(name.rpartition(".")[2], bytes)(content)
    file = described(tmp_path / name, packed)
    units = plan_units([file], unit_bytes=20_000, whole_txt=False)
    pieces = [piece for unit in units for piece in unit.pieces]
    with patch.object(blocks, "READ_BYTES", 1000):
        weights = [batch.weight for piece in pieces for batch in Reader(txt_documents="line").read(file, piece)]
    assert sum(weights) == sum(piece.weight for piece in pieces)
    assert min(weights) >= 0
    assert len(weights) > 100


RECORDS: list[tuple[bytes, str, str]] = [
    (b'{"text": "a', "malformed_json", r"unexpected end of data at character 11: '{\"text\": \"a'"),
    (b"nonsense", "malformed_json", "at character 0"),
    (b"[" * 5000, "malformed_json", "depth limit"),
    (b'{"text": "\xff"}', "invalid_utf8", "not UTF-8: byte 0xff at byte 10 of the record"),
    (b"\xff\xfe{\x00}\x00", "invalid_utf8", "UTF-16, not UTF-8: convert the file"),
    (b'{"text": "\\ud800"}', "invalid_utf8", "'text' holds half of a surrogate pair at character 0"),
    (b'["text"]', "not_an_object", "a JSON list; a record must be an object"),
    (b'"text"', "not_an_object", "a JSON str"),
    (b'{"body": "a", "id": 1}', "missing_key", r"no field 'text' \(fields: body, id\)"),
    (b'{"text": null}', "null", "'text' is null"),
    (b'{"text": 7}', "not_a_string", "'text' is of type int, not a string"),
    (b'{"text": "' + b"x" * 5000 + b'"}', "too_long", r"longer than 5000 bytes \(--max-record-bytes\)"),
    (b'{"text": "a <|eos|> b"}', "special_token", r"it spells '<\|eos\|>'"),
]


@pytest.mark.parametrize(
    ("line", "kind", "detail"), RECORDS, ids=[f"{kind}-{i}" for i, (_, kind, _) in enumerate(RECORDS)]
)
@pytest.mark.parametrize("num_good", [1, 40])  # one by one, and in groups
def test_a_bad_record_is_named_and_counted(tmp_path: Path, line: bytes, kind: str, detail: str, num_good: int) -> None:
    good = b'{"text": "good"}\n' * num_good
    file = described(tmp_path / "input.jsonl", good + line + b"\n" + good)
    reader = Reader(max_record_bytes=5000, refused=SpecialNames(["<|eos|>"]))
    found = read(file, reader)
    assert found.texts == ["good"] * (2 * num_good)
    assert found.counters == Counters(lines=2 * num_good + 1, documents=2 * num_good, bad={kind: 1})
    assert found.bad == [(len(good), kind, line[:5000])]
    [bad] = [bad for batch in reader.read(file, Piece(0, 0, file.size, file.size)) for bad in batch.bad]
    message = explain(bad.offender, file)
    place = rf"{file.path}:{num_good + 1}, byte {len(good)}: {kind.replace('_', ' ')}: "
    assert re.fullmatch(f"{place}.*{detail}.*--on-bad-record skip or quarantine\\.", message), message


def test_remedies_name_the_options_that_help(tmp_path: Path) -> None:
    file = described(tmp_path / "a.jsonl", b"")
    for kind, option in (("missing_key", "--text-key"), ("too_long", "limit"), ("special_token", "--special-in-text")):
        assert option in explain(Offender(file=file.path, offset=0, kind=kind, detail="x"), file)


def test_a_template_and_metadata(tmp_path: Path) -> None:
    lines = [
        b'{"title": "T", "body": "B", "id": 1}',
        b'{"title": "{id}", "body": "B", "x": NaN, "id": NaN}',
        b'{"title": "", "body": ""}',
        b'{"title": "T", "body": null}',
        b'{"title": "T", "body": "B", "id": "\\ud800"}',
        b'{"title": "T", "body": "B", "id": ' + b"[" * 300 + b"]" * 300 + b"}",
    ]
    file = described(tmp_path / "a.jsonl", b"\n".join(lines) + b"\n")
    fields = Fields(template="{title}: {{{body}}}", metadata_keys=("id", "none"))
    [batch, *rest] = [
        batch for batch in Reader(fields=fields).read(file, Piece(0, 0, file.size, 1)) if batch.counters.lines
    ]
    assert not rest
    assert batch.texts == ["T: {B}", "{id}: {B}"]
    assert batch.metadata == [{"id": 1, "none": None}, {"id": pytest.approx(math.nan, nan_ok=True), "none": None}]
    assert batch.counters.empty == 1
    assert batch.counters.bad == {"null": 1, "bad_metadata": 2}
    assert orjson.dumps(batch.metadata)


@pytest.mark.parametrize("mode", ["file", "line", "block"])
def test_a_txt_beside_records_has_no_metadata(tmp_path: Path, mode: Any) -> None:
    file = described(tmp_path / "a.txt", b"text")
    batches = Reader(fields=Fields(metadata_keys=("id",)), txt_documents=mode).read(file, Piece(0, 0, 4, 4))
    assert [batch.metadata for batch in batches if batch.texts] == [[{"id": None}]]


def test_a_damaged_file_keeps_what_comes_before(tmp_path: Path) -> None:
    lines = [orjson.dumps({"text": f"{number} {random.Random(number).random()}"}) + b"\n" for number in range(50_000)]
    whole = gzip.compress(b"".join(lines))
    file = described(tmp_path / "cut.jsonl.gz", whole[: len(whole) // 2])
    found = read(file, Reader(keeps_damaged=True))
    readable = zlib.decompressobj(wbits=31).decompress(whole[: len(whole) // 2])
    assert found.counters.documents == readable.count(b"\n") > 10_000
    [(offset, kind, raw)] = found.bad
    assert (offset, kind) == (sum(map(len, lines[: found.counters.documents])), "damaged_file")
    assert lines[found.counters.documents].startswith(raw)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", b""),
        ("a.jsonl.zst", b""),
        ("a.jsonl.gz", b'{"text": "not compressed"}\n'),
        ("a.jsonl.zst", b'{"text": "not compressed"}\n'),
        ("a.jsonl.gz", gzip.compress(b"{}") + b"garbage behind it"),
        ("a.jsonl.gz", gzip.compress(b"{}") + b"x"),
        ("a.jsonl.zst", compress(b"{}") + b"garbage behind it"),
        ("a.jsonl.zst", compress(b"{}") + b"x"),
    ],
)
def test_what_is_no_whole_compressed_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    file = described(tmp_path / name, content)
    with pytest.raises(DataError, match=f"{name} cannot be decompressed: .+"):
        read(file, Reader())
    assert read(file, Reader(keeps_damaged=True)).counters.bad["damaged_file"] == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_file_of_nothing_holds_nothing(tmp_path: Path, name: str) -> None:
    packed = {"gz": gzip.compress, "zst": compress}.get(name.rpartition(".")[2], bytes)
    for content in (b"", BOM):
        found = read(described(tmp_path / name, packed(content)), Reader())
        assert found.counters.documents == found.counters.num_bad == 0
        assert found.counters.lines == found.counters.empty == int(name == "a.txt")


def test_memory_is_bounded_however_long_a_record_is(tmp_path: Path) -> None:
    size = 64 * 2**20
    for name, compressed in (("a.jsonl.gz", gzip.compress), ("a.txt.zst", compress)):
        for content in (b"x" * size, b" " * size, b"\n" * 2**18):
            file = described(tmp_path / name, compressed(content))
            for mode in ("file", "block"):
                tracemalloc.start()
                found = read(file, Reader(max_record_bytes=2**20, txt_documents=mode))
                assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
                tracemalloc.stop()
                assert found.counters.num_bad == (content[:1] == b"x")


def test_documents_of_one_file(tmp_path: Path) -> None:
    lines = [b'{"body": "one\\n", "text": 1}', b"", b'{"body": ""}', '{"body": "é"}'.encode()]
    content = b"\n".join(lines)
    for name, packed in (
        ("a.jsonl", content),
        ("a.jsonl.gz", gzip.compress(content)),
        ("a.ndjson.zst", compress(content)),
    ):
        path = tmp_path / name
        path.write_bytes(packed)
        seen: list[int] = []
        documents = list(read_documents(path, text_key="body", on_bytes=seen.append))
        assert documents == [Document(str(path), "one\n"), Document(str(path), "é")]
        assert sum(seen) == path.stat().st_size


def test_documents_of_a_txt_are_as_they_are_and_a_long_one_comes_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes("  first\r\nsecond é\n".encode())
    assert list(read_documents(path)) == [Document(str(path), "  first\r\nsecond é\n")]
    text = "".join(f"line {number}\n" for number in range(200_000))
    path.write_text(text)
    parts = [document.text for document in read_documents(path)]
    assert "".join(parts) == text
    assert len(parts) > 2
    assert all(part.endswith("\n") for part in parts)


def test_a_record_longer_than_that_of_a_job_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(orjson.dumps({"text": "x" * (MAX_RECORD_BYTES + 1)}))
    [document] = read_documents(path)
    assert len(document.text) == MAX_RECORD_BYTES + 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "good"}\n\n{"body": 1}', r":3, byte 18: missing key: .* --text-key\. Repair or remove"),
        ("a.txt", b"one\ntwo \xe9\n", r":1, byte 0: invalid utf8: .*0xe9 at byte 8 of the record, in its line 2"),
        ("a.jsonl.gz", gzip.compress(b"\n{"), r":2, byte 1: malformed json: unexpected end of data"),
    ],
)
def test_documents_of_a_bad_file_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}{message}") as raised:
        list(read_documents(path))
    assert "--on-bad-record" not in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt cannot be read: No such file"):
        list(read_documents(tmp_path / "a.txt"))
