"""Records to texts: what a line of JSON, a row or a plain text must be, and what is wrong with one that is not."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any

import orjson

from data_prep.errors import DataError

SHOWN_CHARACTERS = 80
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
INTEGERS = range(-(2**63), 2**64)  # what orjson reads and writes as integers; others it reads as floats


class BadRecordError(Exception):
    """A record is wrong: `kind` is one of `accounting.BAD_KINDS`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


@dataclass(frozen=True, kw_only=True)
class Fields:
    """What is taken of a record.

    Attributes:
        text_key: the field that holds the text; of several, joined by `template`.
        template: a text with {names of fields} in it; None if one field is the text.
        metadata_keys: fields that are kept beside the text.
    """

    text_key: str = "text"
    template: str | None = None
    metadata_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.text_keys:
            raise DataError(f"--template {self.template!r} names no field. Write one as {{title}}, and braces as {{{{.")

    @property
    def is_plain(self) -> bool:
        """Whether one field is all that is read."""
        return self.template is None and not self.metadata_keys

    @cached_property
    def parts(self) -> tuple[tuple[str, str | None], ...]:
        """The template as literal texts, each with the name of the field that follows it; None at the end."""
        if self.template is None:
            return (("", self.text_key),)
        try:
            parts = list(Formatter().parse(self.template))
        except ValueError as error:
            raise DataError(
                f"--template {self.template!r} is wrong: {error}. Write braces as {{{{ and }}}}."
            ) from error
        for _, name, form, conversion in parts:
            if name == "" or form or conversion:
                raise DataError(
                    f"--template {self.template!r} is wrong: {{{name}}} must be the name of a field and nothing else. "
                    "Write it as {title}."
                )
        return tuple((literal, name) for literal, name, _, _ in parts)

    @cached_property
    def text_keys(self) -> tuple[str, ...]:
        """The fields that the text is made of."""
        return tuple(dict.fromkeys(name for _, name in self.parts if name is not None))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """All fields that are read."""
        return tuple(dict.fromkeys(self.text_keys + self.metadata_keys))


def text_of(record: Any, fields: Fields) -> str:
    """The text of one record; that of a template is empty if all its fields are.

    Raises:
        BadRecordError: it has none.
    """
    if type(record) is not dict:
        raise BadRecordError("not_an_object", f"a JSON {type(record).__name__}; a record must be an object")
    if fields.template is None:
        return _checked(record, fields.text_key)
    found = {key: _checked(record, key) for key in fields.text_keys}
    if not any(found.values()):
        return ""
    return "".join(literal + (found[name] if name is not None else "") for literal, name in fields.parts)


def metadata_of(record: Mapping[str, Any], fields: Fields) -> dict[str, Any] | None:
    """What is kept of a record beside its text, None if nothing is; null for a field that it does not have.

    Raises:
        BadRecordError: it cannot be written as JSON. NaN and infinity can: as null.
    """
    if not fields.metadata_keys:
        return None
    kept = {key: record.get(key) for key in fields.metadata_keys}
    try:
        orjson.dumps(kept)
    except TypeError as error:
        raise BadRecordError("bad_metadata", f"what --keep asks for cannot be written as JSON: {error}") from error
    return kept


def parse_json(line: bytes) -> Any:
    """The value of a line of JSON. What many writers make although it is no JSON is taken too: NaN, Infinity, huge
    numbers, and halves of surrogate pairs outside of the text.

    Raises:
        BadRecordError: it is not JSON, or not UTF-8.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos}"
    try:
        return json.loads(line.decode("utf-8"), parse_int=_integer)
    except UnicodeDecodeError as error:
        raise BadRecordError("invalid_utf8", _not_utf8(line, error)) from error
    except (ValueError, RecursionError) as error:
        raise BadRecordError("malformed_json", f"{reason}: {shown(line)}") from error


def decode(raw: bytes) -> str:
    """A plain text.

    Raises:
        BadRecordError: it is not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecordError("invalid_utf8", _not_utf8(raw, error)) from error


def decode_lines(raw: bytes) -> str:
    """The plain text of a line or more, whose end may have been that of Windows."""
    return decode(raw.removesuffix(b"\r"))


def all_texts(texts: Sequence[Any]) -> bool:
    """Whether each is a text, and none is empty."""
    return set(map(type, texts)) <= {str} and all(texts)


def json_parser(fields: Fields) -> Callable[[list[bytes]], list[str]] | None:
    """Lines of JSON to texts where all is well; any ValueError, KeyError or TypeError means that something is not."""
    if not fields.is_plain:
        return None
    loads, key = orjson.loads, fields.text_key
    return lambda lines: [loads(line)[key] for line in lines]


def plain_parser(records: list[bytes]) -> list[str]:
    """Plain texts where all is well, like what `json_parser` gives."""
    return _not_blank([record.decode("utf-8") for record in records])


def paragraph_parser(records: list[bytes]) -> list[str]:
    """`plain_parser` for records that `decode_lines` decodes."""
    return plain_parser([record.removesuffix(b"\r") for record in records])


def line_parser(records: list[bytes]) -> list[str]:
    """`paragraph_parser` for single lines: these are too short to be decoded one by one."""
    joined = b"\n".join(records).decode("utf-8")
    texts = joined.split("\n") if records else []
    return _not_blank([text.removesuffix("\r") for text in texts] if "\r" in joined else texts)


def _not_blank(texts: list[str]) -> list[str]:
    if any(map(str.isspace, texts)):
        raise ValueError("a text of white space")
    return texts


def shown(raw: bytes) -> str:
    """The start of a record, for a message."""
    text = raw[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace").strip()
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")


def _checked(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if type(value) is str and value.isascii():
        return value
    if key not in record:
        known = ", ".join(map(str, list(record)[:8])) or "none"
        raise BadRecordError("missing_key", f"no field {key!r} (fields: {known})")
    if value is None:
        raise BadRecordError("null", f"{key!r} is null")
    if isinstance(value, bytes):  # of a .parquet
        return decode(value)
    if not isinstance(value, str):
        raise BadRecordError("not_a_string", f"{key!r} is of type {type(value).__name__}, not a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        detail = f"{key!r} holds half of a surrogate pair at character {error.start}"
        raise BadRecordError("invalid_utf8", detail) from error
    return value


def _integer(digits: str) -> int | float:
    """As orjson reads it."""
    number = float(digits)
    return int(digits) if abs(number) < 2**65 and int(digits) in INTEGERS else number


def _not_utf8(raw: bytes, error: UnicodeDecodeError) -> str:
    if raw.startswith(UTF16_MARKS):
        return "UTF-16, not UTF-8: convert the file, as with `iconv -f UTF-16 -t UTF-8`"
    line = raw.count(b"\n", 0, error.start) + 1
    where = f"byte {error.start} of the record" + (f", in its line {line}" if line > 1 else "")
    return f"not UTF-8: byte 0x{raw[error.start]:02x} at {where}"
