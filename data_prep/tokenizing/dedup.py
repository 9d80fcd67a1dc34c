"""Exact duplicates across all units of a job, in bounded memory and with the same result for any number of workers.

Three steps, each a pure function of files, so that any process can do any part of it: each unit writes the hashes of
its documents, sorted; the hashes are looked at by ranges that fit in memory, and what is not the first of its kind is
written down; each unit looks up which of its documents these are. The first document, in the order of the input, stays.
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from data_prep.atomic import link_if_absent, replacing, sync_file, temporary_beside
from data_prep.errors import DataError

MAX_BUCKET_DOCUMENTS = 2 * 10**6  # about 60 bytes each while a range is sorted
HASH = np.dtype([("high", "<u8"), ("low", "<u8"), ("place", "<u4")])
DUPLICATE = np.dtype([("unit", "<u4"), ("place", "<u4")])


def normalized(text: str) -> str:
    """What two texts have in common that count as the same: Unicode's form NFC, runs of white space as one space."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())


def hashes_path(work: Path, unit: int) -> Path:
    return work / f"unit_{unit:05d}.hashes.npy"


def bucket_path(work: Path, bucket: int) -> Path:
    return work / f"bucket_{bucket:05d}.duplicates.npy"


def input_checksum(work: Path, unit: int) -> str:
    """The checksum of what a unit's hashes were made of."""
    return _checksum_path(hashes_path(work, unit)).read_text()


def write_hashes(path: Path, batches: Iterable[Sequence[str]], checksum: Callable[[], str]) -> None:
    """Write the hash of each document of a unit, with its place among them, sorted by hash.

    Args:
        checksum: of what was read, once all batches are; it is kept beside the hashes.
    """
    digests = bytearray()
    for texts in batches:
        digests += b"".join(xxhash.xxh3_128_digest(normalized(text).encode()) for text in texts)
    halves = np.frombuffer(digests, "<u8").reshape(-1, 2)
    entries = np.empty(len(halves), HASH)
    entries["high"], entries["low"], entries["place"] = halves[:, 0], halves[:, 1], np.arange(len(halves))
    with replacing(_checksum_path(path)) as temporary:
        temporary.write_text(checksum())
    _save(path, entries[np.lexsort((entries["low"], entries["high"]))])


def _checksum_path(hashes: Path) -> Path:
    return hashes.with_suffix(".checksum")


def num_buckets(work: Path, num_units: int) -> int:
    """In how many ranges the hashes of all units are looked at; all of them must be written."""
    total = sum(len(_load(hashes_path(work, unit))) for unit in range(num_units))
    return max(-(-total // MAX_BUCKET_DOCUMENTS), 1)


def write_duplicates(work: Path, bucket: int, buckets: int, num_units: int) -> None:
    """Write which documents with hashes in one range are not the first with their hash, by unit and place."""
    low, high = bucket * 2**64 // buckets, (bucket + 1) * 2**64 // buckets
    parts = [_in_range(_load(hashes_path(work, unit)), low, high) for unit in range(num_units)]
    units = np.repeat(np.arange(num_units, dtype="<u4"), list(map(len, parts)))
    entries = np.concatenate(parts)
    order = np.lexsort((entries["low"], entries["high"]))  # stable: equal hashes stay in the order of the input
    entries, units = entries[order], units[order]
    repeated = np.zeros(len(entries), bool)
    repeated[1:] = (entries["high"][1:] == entries["high"][:-1]) & (entries["low"][1:] == entries["low"][:-1])
    found = np.empty(int(repeated.sum()), DUPLICATE)
    found["unit"], found["place"] = units[repeated], entries["place"][repeated]
    _save(bucket_path(work, bucket), np.sort(found, order=["unit", "place"]))


def duplicates_of(work: Path, unit: int, buckets: int) -> npt.NDArray[np.uint32]:
    """The places of a unit's documents that are duplicates of earlier ones, sorted."""
    found = []
    for bucket in range(buckets):
        entries = _load(bucket_path(work, bucket))
        begin, end = np.searchsorted(entries["unit"], [unit, unit + 1])
        found.append(entries["place"][begin:end])
    return np.sort(np.concatenate(found))


def _in_range(entries: npt.NDArray[Any], low: int, high: int) -> npt.NDArray[Any]:
    begin = np.searchsorted(entries["high"], np.uint64(low))
    end = len(entries) if high == 2**64 else np.searchsorted(entries["high"], np.uint64(high))
    return np.array(entries[begin:end])


def _save(path: Path, entries: npt.NDArray[Any]) -> None:
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            np.save(file, entries)
        sync_file(temporary)
        link_if_absent(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _load(path: Path) -> npt.NDArray[Any]:
    try:
        with path.open("rb") as file:
            entries: npt.NDArray[Any] = np.load(file) if path.stat().st_size < 2**12 else np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}. Delete it and give the same command again.") from error
    return entries
