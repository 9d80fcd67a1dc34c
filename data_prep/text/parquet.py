"""Rows of .parquet files, a bounded number of bytes at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.errors import DamagedFile, DataError

BATCH_BYTES = 2**20
MAX_BATCH_ROWS = 1024  # bounds the memory where rows are much larger than their mean
READ_BYTES = 2**20


@contextmanager
def open_parquet(path: Path | str) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`, and `reading` as long as it is open."""
    from pyarrow import parquet

    # A buffer: columns are read page by page, not a whole row group at once.
    with reading(path), parquet.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as file:
        yield file


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """What goes wrong with a file in the block is a DataError that names it.

    Raises:
        DamagedFile: the content is at fault.
    """
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()).removesuffix(".")
        kind = DataError if getattr(error, "errno", None) else DamagedFile
        raise kind(f"{path} cannot be read as .parquet: {reason}. Copy or write it again.") from error


def check_columns(file: Any, path: Path | str, columns: Sequence[str], text_columns: Sequence[str]) -> None:
    """Raise DataError unless the file has each of these columns once, and those of text hold strings."""
    import pyarrow

    types = pyarrow.types
    schema = file.schema_arrow
    for name in columns:
        if name not in schema.names:
            known = ", ".join(schema.names[:8]) or "none"
            option = "--text-key" if name in text_columns else "--keep"
            raise DataError(f"{path} has no column {name!r} (columns: {known}). Give the right one with {option}.")
        if schema.names.count(name) > 1:
            raise DataError(
                f"{path} has {schema.names.count(name)} columns {name!r}. Rename them, to tell which is meant."
            )
    for name in text_columns:
        kind = schema.field(name).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if not (
            types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)
        ):
            raise DataError(f"{path}: column {name!r} holds {kind}, not strings. Give one of text with --text-key.")


def row_batches(file: Any, group: int, columns: Sequence[str]) -> Iterator[list[Any]]:
    """The rows of one row group as a `pyarrow.Array` for each column, of about BATCH_BYTES."""
    metadata = file.metadata.row_group(group)
    bytes_a_row = max(metadata.total_byte_size / max(metadata.num_rows, 1), 1)
    rows = int(min(max(BATCH_BYTES / bytes_a_row, 1), MAX_BATCH_ROWS))
    for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=list(columns)):
        # By name: asked for the column `a.b`, pyarrow gives `b` of a column `a`, too.
        yield [batch.column(batch.schema.get_field_index(name)) for name in columns]


def text_bytes(columns: Sequence[Any]) -> npt.NDArray[np.int64]:
    """The bytes of text in each row of string columns, shape (num_rows,); no text is decoded."""
    lengths: npt.NDArray[np.int64] = np.sum([_lengths(column) for column in columns], axis=0, dtype=np.int64)
    return lengths


def portions(lengths: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Rows that hold BATCH_BYTES of text at most, or are one: Python's texts take more memory than Arrow's."""
    start, total = 0, 0
    if lengths.sum() <= 2 * BATCH_BYTES:
        yield slice(0, len(lengths))
        return
    for row, length in enumerate(lengths.tolist()):
        if total and total + length > BATCH_BYTES:
            yield slice(start, row)
            start, total = row, 0
        total += length
    yield slice(start, len(lengths))


def values(column: Any) -> list[Any]:
    """The values of a column; a string that is not UTF-8 as its bytes, of other types those it holds are left out."""
    try:
        found: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]
    return found


def start_of(column: Any, row: int, size: int) -> bytes:
    """At most the first `size` bytes of a string, without decoding all of it."""
    import pyarrow

    scalar = column[row]
    if pyarrow.types.is_dictionary(scalar.type):
        scalar = scalar.value
    return bytes(memoryview(scalar.as_buffer())[:size]) if scalar is not None and scalar.is_valid else b""


def first_row(file: Any, group: int) -> int:
    """The number of the first row of a row group in its file."""
    return sum(file.metadata.row_group(before).num_rows for before in range(group))


def column_bytes(file: Any, path: Path | str, group: int, columns: Sequence[str]) -> Iterator[bytes]:
    """The bytes of the file that hold these columns of a row group, as they are compressed."""
    row_group = file.metadata.row_group(group)
    with open(path, "rb") as raw:
        for index in range(row_group.num_columns):
            chunk = row_group.column(index)
            if not any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
                continue
            start = chunk.data_page_offset
            if chunk.has_dictionary_page:
                start = min(start, chunk.dictionary_page_offset)
            raw.seek(start)
            left = chunk.total_compressed_size
            while left and (content := raw.read(min(left, READ_BYTES))):
                yield content
                left -= len(content)


def _lengths(column: Any) -> Any:
    import pyarrow
    from pyarrow import compute

    kind = column.type
    if pyarrow.types.is_null(kind):
        return np.zeros(len(column), np.int64)
    if pyarrow.types.is_dictionary(kind):
        # A text that is repeated many times is not written out.
        lengths = np.append(_lengths(column.dictionary), 0)
        return lengths[compute.fill_null(column.indices, len(lengths) - 1).to_numpy(zero_copy_only=False)]
    if pyarrow.types.is_string_view(kind):
        column = column.cast(pyarrow.large_binary())
    lengths = compute.binary_length(column)
    return compute.fill_null(lengths, 0).to_numpy(zero_copy_only=False)


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return bytes(scalar.as_buffer()) if hasattr(scalar, "as_buffer") else b""
