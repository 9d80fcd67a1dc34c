"""Checksums of files of any size."""

from collections.abc import Callable
from pathlib import Path

import xxhash

CHUNK_BYTES = 2**22


def file_checksum(path: Path, on_bytes: Callable[[int], object] = lambda _: None) -> str:
    """The xxh3-128 of the bytes of `path`, in hex; `on_bytes` hears of each chunk read."""
    checksum = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            checksum.update(chunk)
            on_bytes(len(chunk))
    return str(checksum.hexdigest())
