"""Token ids to a shard on disk: temporary names, fsync, rename, so that a shard is there whole or not at all."""

import os
from array import array
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import xxhash

from data_prep.atomic import TEMPORARY, sync_folder
from data_prep.errors import DataError
from data_prep.format import MAX_DOCUMENT_TOKENS, bin_path, idx_path, write_index
from data_prep.manifest import Shard


class ShardWriter:
    """Appends documents to one shard. Memory: 4 bytes a document.

    As a context manager it removes what it wrote under temporary names unless `commit` was reached.
    """

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any]) -> None:
        self._folder, self._name, self._dtype = folder, name, dtype
        self._lengths = array("i")
        self._checksum = xxhash.xxh3_128()
        self._temporary = [Path(f"{path}{TEMPORARY}") for path in (bin_path(folder, name), idx_path(folder, name))]
        self._bin: BinaryIO = self._temporary[0].open("wb")
        self.num_tokens = 0

    def append(self, tokens: npt.NDArray[Any]) -> None:
        """Add one document, shape (num_tokens,), of any integer dtype; its ids must fit the shard's."""
        if len(tokens) > MAX_DOCUMENT_TOKENS:
            raise DataError(f"a document of {len(tokens)} tokens does not fit the format (2^31 - 1). Split it.")
        content = tokens.astype(self._dtype).data
        self._bin.write(content)
        self._checksum.update(content)
        self._lengths.append(len(tokens))
        self.num_tokens += len(tokens)

    def commit(self) -> Shard:
        """Flush both files to the disk, give them their names, and describe them."""
        _flush(self._bin)
        with self._temporary[1].open("wb") as file:
            write_index(file, lengths=np.frombuffer(self._lengths, np.int32), dtype=self._dtype)
            _flush(file)
        idx_checksum = xxhash.xxh3_128_hexdigest(self._temporary[1].read_bytes())
        for temporary in self._temporary:
            temporary.replace(temporary.with_suffix(""))
        sync_folder(self._folder)
        return Shard(
            name=self._name,
            num_documents=len(self._lengths),
            num_tokens=self.num_tokens,
            bin_bytes=self.num_tokens * self._dtype.itemsize,
            bin_checksum=self._checksum.hexdigest(),
            idx_checksum=idx_checksum,
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


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
