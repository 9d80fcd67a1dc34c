"""What a record must be, and what is said about one that is not."""

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.text.parsing import (
    BadRecordError,
    Fields,
    decode,
    line_parser,
    metadata_of,
    paragraph_parser,
    parse_json,
    text_of,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(value=values)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"NaN", math.nan),
        (b"[Infinity, -Infinity, 1e999]", [math.inf, -math.inf, math.inf]),
        (b"[123456789012345678901234567890, NaN]", [123456789012345678901234567890.0, math.nan]),
        (b"[18446744073709551615, -9223372036854775808, NaN]", [2**64 - 1, -(2**63), math.nan]),
        (b"[18446744073709551616, -9223372036854775809, NaN]", [2.0**64, -(2.0**63), math.nan]),
        (b"[" + b"1" * 5000 + b"]", [math.inf]),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": 1, "a": NaN, "a": 2}', {"a": 2}),
    ],
)
def test_what_many_writers_make_is_taken(line: bytes, value: Any) -> None:
    found = parse_json(line)
    assert repr(found) == repr(value)
    assert orjson.dumps(found)


@pytest.mark.parametrize(
    "line", [b"{", b"{}{}", b"{} x", b"\xef\xbb\xbf{}", b"'a'", b"[1,]", b'{"a": "\n"}', b"\x00", b"[" * 10**5]
)
def test_what_is_no_json_is_refused(line: bytes) -> None:
    with pytest.raises(BadRecordError) as raised:
        parse_json(line)
    assert raised.value.kind == "malformed_json"
    assert len(str(raised.value)) < 300


@given(
    parts=st.lists(
        st.tuples(st.text(max_size=4), st.sampled_from(["a", "b.c", "d[0]", "0", "é"])), min_size=1, max_size=4
    )
)
def test_a_template_puts_fields_between_its_text(parts: list[tuple[str, str]]) -> None:
    escaped = "".join(text.replace("{", "{{").replace("}", "}}") + f"{{{name}}}" for text, name in parts)
    record = {name: f"<{name} {{x}}>" for _, name in parts}
    fields = Fields(template=escaped)
    assert text_of(record, fields) == "".join(text + record[name] for text, name in parts)
    assert set(fields.text_keys) == set(record)
    assert text_of(dict.fromkeys(record, ""), fields) == ""


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no field", "names no field"),
        ("{{title}}", "names no field"),
        ("{title", "is wrong: expected '}'"),
        ("{title}}", "is wrong: Single '}'"),
        ("{}", "must be the name of a field and nothing else"),
        ("{title!r}", r"\{title\} must be the name"),
        ("{title:>10}", r"\{title\} must be the name"),
    ],
)
def test_a_wrong_template_is_refused_at_once(template: str, message: str) -> None:
    with pytest.raises(DataError, match=f"--template .* {message}"):
        Fields(template=template)


def test_metadata_is_kept_or_refused() -> None:
    fields = Fields(metadata_keys=("id", "url"))
    assert fields.columns == ("text", "id", "url")
    assert metadata_of({"text": "a", "id": [1]}, fields) == {"id": [1], "url": None}
    assert metadata_of({"text": "a"}, Fields()) is None
    with pytest.raises(BadRecordError, match=r"--keep .* JSON"):
        metadata_of({"id": "\ud800"}, fields)


def test_text_that_is_not_utf8_names_the_place() -> None:
    with pytest.raises(BadRecordError, match=r"byte 0xe9 at byte 7 of the record, in its line 2$"):
        decode(b"one\ntwo\xe9")
    with pytest.raises(BadRecordError, match=r"UTF-16, not UTF-8: .*iconv"):
        decode("text".encode("utf-16"))


@given(
    records=st.lists(
        st.text(alphabet="ab \r\u00a0é\x00", min_size=1, max_size=6).map(str.encode), min_size=1, max_size=6
    )
)
def test_lines_are_decoded_together_as_one_by_one(records: list[bytes]) -> None:
    expected = [decode(record.removesuffix(b"\r")) for record in records]
    for parse in (line_parser, paragraph_parser):
        try:
            assert parse(records) == expected
        except ValueError:
            assert any(text.isspace() for text in expected)
