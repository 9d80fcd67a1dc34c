"""What is kept of each document beside its tokens: `shard_NNNNN.metadata.jsonl.zst`, a line of JSON a document."""

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from data_prep.atomic import link_if_absent, sync_folder, temporary_beside
from data_prep.checksum import file_checksum
from data_prep.errors import DataError
from data_prep.format import metadata_path
from data_prep.ragged import gather
from data_prep.zstd import ZstdError, ZstdFile, compress

BLOCK_BYTES = 2**20
LEVEL = 3
NEWLINE = ord("\n")


class Lines(NamedTuple):
    """Lines of JSON, newlines included: their bytes, uint8, and the length of each, int64, shape (num_documents,)."""

    content: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]

    def pick(self, rows: npt.NDArray[np.int64]) -> "Lines":
        """These rows, in their order."""
        lengths = self.lengths[rows]
        return Lines(gather(self.content, (np.cumsum(self.lengths) - self.lengths)[rows], lengths), lengths)


class MetadataReader:
    """Reads the lines of a file in their order. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = ZstdFile(path)
        self._rest = b""

    def read(self, count: int) -> Lines:
        """The next `count` lines.

        Raises:
            DataError: there are fewer, or the file is damaged.
        """
        pieces: list[bytes] = []
        missing = count
        while missing:
            block = self._rest or self._next_block()
            self._rest = b""
            if not block:
                raise DataError(f"{self._path} has {missing} lines less than its shard has documents. Restore it.")
            found = block.count(b"\n")
            if found > missing:
                end = int(np.flatnonzero(np.frombuffer(block, np.uint8) == NEWLINE)[missing - 1]) + 1
                block, self._rest, found = block[:end], block[end:], missing
            elif found == missing:
                end = block.rindex(b"\n") + 1
                block, self._rest = block[:end], block[end:]
            pieces.append(block)
            missing -= found
        content = np.frombuffer(b"".join(pieces), np.uint8)
        ends = np.flatnonzero(content == NEWLINE) + 1
        return Lines(content, np.diff(ends, prepend=0))

    def at_end(self) -> bool:
        """Whether all lines were read."""
        self._rest = self._rest or self._next_block()
        return not self._rest

    def _next_block(self) -> bytes:
        try:
            block: bytes = self._file.read(BLOCK_BYTES)
        except (EOFError, ZstdError) as error:
            raise DataError(f"{self._path} is damaged: {error}. Restore it.") from error
        return block

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class MetadataWriter:
    """Writes the file of the shard `name`. As a context manager it removes its temporary file, committed or not."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = metadata_path(folder, name)
        self._temporary = temporary_beside(self._path)
        self._file = self._temporary.open("wb")
        self._stream = ZstdFile(self._file, "w", level=LEVEL)
        self._is_empty = True

    def write(self, lines: bytes | npt.NDArray[np.uint8]) -> None:
        """Add whole lines, one for each document of the shard."""
        self._stream.write(lines)
        self._is_empty = False

    def commit(self) -> str:
        """Flush to the disk, give the file its name; its xxh3-128 in hex."""
        self._stream.close()
        if self._is_empty:  # then nothing was written, not even the frame that readers look for
            self._file.write(compress(b""))
        self._file.flush()
        os.fsync(self._file.fileno())
        checksum = file_checksum(self._temporary)
        link_if_absent(self._temporary, self._path)
        sync_folder(self._path.parent)
        return checksum

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with suppress(OSError):  # a full disk: what is written now is removed anyway, or was closed by `commit`
                self._stream.close()
        finally:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
