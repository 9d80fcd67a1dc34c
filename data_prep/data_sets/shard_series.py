"""Documents to shards of a chosen size, one after the other, with what is kept beside their tokens."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from data_prep.errors import DataError
from data_prep.manifest import Shard
from data_prep.metadata import Lines, MetadataWriter
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

    def append(self, tokens: npt.NDArray[Any], lengths: npt.NDArray[np.int64], metadata: Lines | None = None) -> None:
        """Add documents that lie one after the other in `tokens`; `lengths`, shape (num_documents,), sum up to it."""
        ends = np.cumsum(lengths)
        line_ends = np.cumsum(metadata.lengths) if metadata else ends
        first = done = lines_done = 0
        while first < len(lengths):
            room = self._shard_tokens - self._num_tokens
            last = min(int(np.searchsorted(ends, done + room, side="left")) + 1, len(lengths))
            end, lines_end = int(ends[last - 1]), int(line_ends[last - 1])
            writer, lines = self._current()
            writer.append_batch(tokens[done:end], lengths[first:last])
            if lines is not None:
                assert metadata is not None
                lines.write(metadata.content[lines_done:lines_end])
            self._num_tokens += end - done
            if self._num_tokens >= self._shard_tokens:
                self._close()
            first, done, lines_done = last, end, lines_end

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
