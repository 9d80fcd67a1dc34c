"""Documents to shards of a chosen size, one after the other, with what is kept beside their tokens."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from data_prep.data_sets.documents import Documents
from data_prep.errors import DataError
from data_prep.manifest import Shard
from data_prep.metadata import MetadataWriter
from data_prep.writer import ShardWriter

SHARD_TOKENS = 2**28  # 0.5 GB of uint16: large enough to read in one sweep, small enough to copy again
MAX_SHARDS = 10**5  # names have five digits


class ShardSeries:
    """Writes `shard_00000`, `shard_00001` ... A context manager: what is not finished is removed.

    Args:
        shard_tokens: a shard is closed by the document that reaches this many.
        metadata: whether each document comes with a line.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], *, shard_tokens: int, metadata: bool) -> None:
        self._folder, self._dtype, self._shard_tokens, self._metadata = folder, dtype, shard_tokens, metadata
        self._shards: list[Shard] = []
        self._stack = ExitStack()
        self._writer: ShardWriter | None = None
        self._lines: MetadataWriter | None = None
        self._num_tokens = 0

    def append(self, documents: Documents) -> None:
        """Add documents."""
        ends = np.cumsum(documents.lengths)
        first = done = 0
        while first < len(ends):
            room = self._shard_tokens - self._num_tokens
            last = min(int(np.searchsorted(ends, done + room, side="left")) + 1, len(ends))
            self._write(documents.part(first, last))
            first, done = last, int(ends[last - 1])

    def _write(self, documents: Documents) -> None:
        writer, lines = self._current()
        writer.append_batch(documents.tokens, *(documents.sequences or (documents.lengths,)))
        if lines is not None:
            assert documents.metadata is not None
            lines.write(documents.metadata.content)
        self._num_tokens += len(documents.tokens)
        if self._num_tokens >= self._shard_tokens:
            self._close()

    def finish(self) -> tuple[Shard, ...]:
        """All shards, on the disk."""
        if self._writer is not None:
            self._close()
        return tuple(self._shards)

    def _current(self) -> tuple[ShardWriter, MetadataWriter | None]:
        if self._writer is None:
            if len(self._shards) == MAX_SHARDS:
                raise DataError(f"{self._folder} would need more than {MAX_SHARDS} shards. Make several data sets.")
            name = f"shard_{len(self._shards):05d}"
            self._writer = self._stack.enter_context(ShardWriter(self._folder, name, self._dtype))
            self._lines = self._stack.enter_context(MetadataWriter(self._folder, name)) if self._metadata else None
        return self._writer, self._lines

    def _close(self) -> None:
        assert self._writer is not None
        checksum = self._lines.commit() if self._lines is not None else None
        self._shards.append(replace(self._writer.commit(), metadata_checksum=checksum))
        self._stack.close()
        self._writer = self._lines = None
        self._num_tokens = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
