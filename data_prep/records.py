"""Frozen dataclasses as JSON files, and back with every type checked: what is read from a disk is not trusted."""

import dataclasses
import types
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import orjson

from data_prep.errors import DataError

Record = TypeVar("Record")


def to_json(record: Any) -> bytes:
    """The JSON of a dataclass, indented, the same bytes for equal records."""
    return orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def read_record(path: Path, kind: type[Record], *, remedy: str) -> Record:
    """The dataclass `kind` in a JSON file.

    Args:
        remedy: what the reader of an error can do about a damaged file.

    Raises:
        DataError: the file is not JSON, or a field is missing, unknown, or of another type; names it.
        OSError: the file cannot be read.
    """
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}. {remedy}") from error
    try:
        record: Record = typed(content, kind, str(path))
    except DataError as error:
        raise DataError(f"{error} {remedy}") from error
    return record


def typed(value: Any, hint: Any, where: str) -> Any:
    """`value`, read from JSON, as the type `hint`; DataError names the place if it is something else."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        hints = get_type_hints(hint)
        if value.keys() != hints.keys():
            wrong = sorted(value.keys() ^ hints.keys())
            raise DataError(f"{where}: fields {wrong} are missing or unknown.")
        return hint(**{name: typed(value[name], hints[name], f"{where}: {name}") for name in hints})  # type: ignore[operator]
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(typed(item, get_args(hint)[0], f"{where}[{i}]") for i, item in enumerate(value))
    if get_origin(hint) is dict and isinstance(value, dict):
        return {key: typed(item, get_args(hint)[1], f"{where}[{key!r}]") for key, item in value.items()}
    options = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, dict):
            return typed(value, option, where)
    if type(value) not in options:
        names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in options)
        raise DataError(f"{where}: {value!r} is wrong because it is not {names}.")
    return value
