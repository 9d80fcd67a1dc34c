"""Documents on the disk by ranges of their keys, for sorting more than fits in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.format import map_tokens
from data_prep.metadata import Lines
from data_prep.ragged import gather, rows_up_to

HEAD = np.dtype([("key", "<u8"), ("num_tokens", "<i8"), ("line_bytes", "<i8")])


@dataclass(frozen=True, kw_only=True)
class Part:
    """Documents that lie one after the other: their tokens, their lengths, int64, and a line for each, or None."""

    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    metadata: Lines | None


class Buckets:
    """`count` files in `folder` (three each): bucket k holds the keys from k / count of their range on.

    Files are opened for each addition, so that their number is not bounded by that of open files.
    """

    def __init__(self, folder: Path, *, count: int, dtype: np.dtype[Any], metadata: bool) -> None:
        assert 0 < count < 2**32
        folder.mkdir()
        self.count, self.dtype, self.metadata, self._folder = count, dtype, metadata, folder

    def add(
        self,
        keys: npt.NDArray[np.uint64],
        tokens: npt.NDArray[Any],
        lengths: npt.NDArray[np.int64],
        metadata: Lines | None,
    ) -> None:
        """Put documents that lie one after the other in `tokens` into their buckets; `keys` has one for each."""
        buckets = ((keys >> np.uint64(32)) * np.uint64(self.count)) >> np.uint64(32)
        order = np.argsort(buckets, kind="stable")
        heads = np.zeros(len(keys), HEAD)
        heads["key"], heads["num_tokens"] = keys[order], lengths[order]
        columns: dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.int64]]] = {
            "tokens": (gather(tokens, (np.cumsum(lengths) - lengths)[order], lengths[order]), lengths[order])
        }
        if metadata is not None:
            picked = metadata.pick(order)
            heads["line_bytes"] = picked.lengths
            columns["lines"] = picked.content, picked.lengths
        columns["heads"] = heads, np.ones(len(heads), np.int64)
        used, counts = np.unique(buckets[order], return_counts=True)
        last_rows = np.cumsum(counts)
        for kind, (values, row_lengths) in columns.items():
            stops = np.cumsum(row_lengths)[last_rows - 1]
            start = 0
            for bucket, stop in zip(used.tolist(), stops.tolist(), strict=True):
                with self._path(bucket, kind).open("ab", buffering=0) as file:
                    _write(file, values[start:stop])
                start = stop

    def sorted(self, bucket: int, num_bytes: int) -> Iterator[Part]:
        """The documents of a bucket by their keys, in parts of up to `num_bytes` of tokens, or one longer document."""
        if not self._path(bucket, "heads").exists():
            return
        heads = np.fromfile(self._path(bucket, "heads"), HEAD)
        tokens = map_tokens(self._path(bucket, "tokens"), self.dtype)
        lengths, line_lengths = heads["num_tokens"], heads["line_bytes"]
        starts = np.cumsum(lengths) - lengths
        lines = None
        if self.metadata:
            lines = Lines(map_tokens(self._path(bucket, "lines"), np.dtype(np.uint8)), line_lengths)
        order = np.argsort(heads["key"])
        for rows in rows_up_to(lengths[order], max(num_bytes // self.dtype.itemsize, 1)):
            picked = order[rows]
            yield Part(
                tokens=gather(tokens, starts[picked], lengths[picked]),
                lengths=lengths[picked],
                metadata=lines.pick(picked) if lines is not None else None,
            )

    def remove(self, bucket: int) -> None:
        """Give its room on the disk back."""
        for kind in ("heads", "tokens", "lines"):
            self._path(bucket, kind).unlink(missing_ok=True)

    def _path(self, bucket: int, kind: str) -> Path:
        return self._folder / f"{bucket}.{kind}"


def _write(file: Any, values: npt.NDArray[Any]) -> None:
    content = values.view(np.uint8).data
    while content:  # a raw file may take less at once
        content = content[file.write(content) :]
