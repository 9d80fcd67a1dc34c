"""Documents on the disk by ranges of their keys, for sorting more than fits in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.data_sets.documents import Documents, Sequences
from data_prep.format import map_tokens
from data_prep.metadata import Lines
from data_prep.ragged import rows_up_to

HEAD = np.dtype([("key", "<u8"), ("num_tokens", "<i8"), ("num_sequences", "<i8"), ("line_bytes", "<i8")])
SEQUENCE_LENGTH = np.dtype("<i8")
KINDS = ("heads", "tokens", "sequences", "lines")


class Buckets:
    """`count` times up to four files in `folder`: bucket k holds the keys from k / count of their range on.

    Files are opened for each addition, so that their number is not bounded by that of open files.
    """

    def __init__(self, folder: Path, *, count: int, dtype: np.dtype[Any], sentences: bool, metadata: bool) -> None:
        """Make the folder.

        Args:
            sentences: documents are runs of sequences.
            metadata: each document comes with a line.
        """
        assert 0 < count < 2**32
        folder.mkdir()
        self.count, self.dtype, self.metadata = count, dtype, metadata
        self._sentences, self._folder = sentences, folder

    def add(self, keys: npt.NDArray[np.uint64], documents: Documents) -> None:
        """Put documents into their buckets; `keys` has one for each."""
        buckets = ((keys >> np.uint64(32)) * np.uint64(self.count)) >> np.uint64(32)
        order = np.argsort(buckets, kind="stable")
        picked = documents.pick(order)
        heads = np.zeros(len(keys), HEAD)
        heads["key"], heads["num_tokens"] = keys[order], picked.lengths
        columns: dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.int64]]] = {"tokens": (picked.tokens, picked.lengths)}
        if picked.sequences is not None:
            heads["num_sequences"] = picked.sequences.counts
            columns["sequences"] = picked.sequences
        if picked.metadata is not None:
            heads["line_bytes"] = picked.metadata.lengths
            columns["lines"] = picked.metadata
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

    def sorted(self, bucket: int, num_bytes: int) -> Iterator[Documents]:
        """The documents of a bucket by their keys, in parts of up to `num_bytes` of tokens, or one longer document."""
        if not self._path(bucket, "heads").exists():
            return
        heads = np.fromfile(self._path(bucket, "heads"), HEAD)
        documents = Documents(
            tokens=self._map(bucket, "tokens", self.dtype),
            lengths=heads["num_tokens"],
            sequences=Sequences(self._map(bucket, "sequences", SEQUENCE_LENGTH), heads["num_sequences"])
            if self._sentences
            else None,
            metadata=Lines(self._map(bucket, "lines", np.dtype(np.uint8)), heads["line_bytes"])
            if self.metadata
            else None,
        )
        order = np.argsort(heads["key"])
        for rows in rows_up_to(documents.lengths[order], max(num_bytes // self.dtype.itemsize, 1)):
            yield documents.pick(order[rows])

    def remove(self, bucket: int) -> None:
        """Give its room on the disk back."""
        for kind in KINDS:
            self._path(bucket, kind).unlink(missing_ok=True)

    def _map(self, bucket: int, kind: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        return map_tokens(self._path(bucket, kind), dtype)

    def _path(self, bucket: int, kind: str) -> Path:
        return self._folder / f"{bucket}.{kind}"


def _write(file: Any, values: npt.NDArray[Any]) -> None:
    content = values.view(np.uint8).data
    while content:  # a raw file may take less at once
        content = content[file.write(content) :]
