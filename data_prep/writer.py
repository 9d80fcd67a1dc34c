"""Token ids to a shard on disk: temporary names, fsync, link, so that a shard is there whole or not at all."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import xxhash

from data_prep.atomic import link_if_absent, sync_folder, temporary_beside
from data_prep.errors import DataError
from data_prep.format import MAX_SEQUENCE_TOKENS, bin_path, idx_path, write_index
from data_prep.manifest import Shard


class ShardWriter:
    """Appends documents to one shard. Memory: 4 bytes a sequence and 4 a document.

    As a context manager it removes what it wrote under temporary names unless `commit` was reached.
    """

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any]) -> None:
        self._folder, self._name, self._dtype = folder, name, dtype
        self._lengths: list[npt.NDArray[np.int32]] = []
        self._counts: list[npt.NDArray[np.int32]] = []
        self._checksum = xxhash.xxh3_128()
        self._names = (bin_path(folder, name), idx_path(folder, name))
        self._temporary = [temporary_beside(path) for path in self._names]
        self._bin: BinaryIO = self._temporary[0].open("wb", buffering=0)
        self.num_tokens = 0

    def append(self, tokens: npt.NDArray[Any]) -> None:
        """Add a document of one sequence, shape (num_tokens,), of any integer dtype; its ids must fit the shard's."""
        self.append_batch(tokens, np.array([len(tokens)]))

    def append_batch(
        self,
        tokens: npt.NDArray[Any],
        lengths: npt.NDArray[np.integer],
        counts: npt.NDArray[np.integer] | None = None,
    ) -> None:
        """Add documents that lie one after the other in `tokens`.

        Args:
            lengths: of their sequences, shape (num_sequences,); they sum up to the tokens.
            counts: how many sequences each document has, shape (num_documents,); one each if None.
        """
        if len(lengths) and lengths.max() > MAX_SEQUENCE_TOKENS:
            raise DataError(f"a sequence of {lengths.max()} tokens does not fit the format (2^31 - 1). Split it.")
        content = np.ascontiguousarray(tokens, dtype=self._dtype).data.cast("B")
        self._checksum.update(content)
        while content:  # a raw file may take less at once
            content = content[self._bin.write(content) :]
        self._lengths.append(lengths.astype(np.int32))
        self._counts.append(np.ones(len(lengths), np.int32) if counts is None else counts.astype(np.int32))
        self.num_tokens += len(tokens)

    def commit(self, metadata_checksum: str | None = None) -> Shard:
        """Flush both files to the disk, give them their names, and describe them, with the metadata beside them."""
        lengths = np.concatenate([np.zeros(0, np.int32), *self._lengths])
        document_indices = np.cumsum(np.concatenate([np.zeros(1, np.int32), *self._counts]), dtype=np.int64)
        assert document_indices[-1] == len(lengths)
        os.fsync(self._bin.fileno())
        with self._temporary[1].open("wb") as file:
            write_index(file, lengths=lengths, document_indices=document_indices, dtype=self._dtype)
            file.flush()
            os.fsync(file.fileno())
        idx_checksum = xxhash.xxh3_128_hexdigest(self._temporary[1].read_bytes())
        for temporary, path in zip(self._temporary, self._names, strict=True):
            link_if_absent(temporary, path)
        sync_folder(self._folder)
        return Shard(
            name=self._name,
            num_documents=len(document_indices) - 1,
            num_sequences=len(lengths),
            num_tokens=self.num_tokens,
            bin_bytes=self.num_tokens * self._dtype.itemsize,
            bin_checksum=self._checksum.hexdigest(),
            idx_checksum=idx_checksum,
            metadata_checksum=metadata_checksum,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._bin.close()
        finally:
            for temporary in self._temporary:
                temporary.unlink(missing_ok=True)
