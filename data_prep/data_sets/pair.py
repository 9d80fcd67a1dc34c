"""What the two files of a shard must agree on, whoever wrote them: read in pieces, so that any size fits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from data_prep.errors import DataError
from data_prep.format import ShardIndex, bin_path, idx_path, map_tokens, read_index

SEQUENCES = 2**20  # looked at together
DOCUMENTS = 2**17
CHUNK_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class TokenScan:
    """What one sweep over a .bin gives: its lowest and highest id (0, -1 if it is empty), its xxh3-128 in hex."""

    lowest: int
    highest: int
    checksum: str


def scan_tokens(tokens: npt.NDArray[Any], on_bytes: Callable[[int], object]) -> TokenScan:
    """Reads all tokens once."""
    checksum = xxhash.xxh3_128()
    lowest, highest = [], []
    step = CHUNK_BYTES // tokens.itemsize
    for start in range(0, len(tokens), step):
        chunk = np.asarray(tokens[start : start + step])
        checksum.update(chunk.data.cast("B"))
        lowest.append(int(chunk.min()))
        highest.append(int(chunk.max()))
        on_bytes(chunk.nbytes)
    return TokenScan(lowest=min(lowest, default=0), highest=max(highest, default=-1), checksum=checksum.hexdigest())


def index_problems(name: str, tokens: npt.NDArray[Any], index: ShardIndex, eod_id: int | None) -> Iterator[str]:
    """What is wrong with an .idx in itself, and with the ends of the documents that it describes."""
    if not _boundaries_rise(index):
        yield f"{name}.idx: the document boundaries do not rise"
    elif not _places_follow(index):
        yield f"{name}.idx: the places of the documents do not follow from their lengths"
    elif eod_id is not None:
        for ends in document_ends(index):
            if (ends.lengths == 0).any() or (tokens[ends.stops - 1] != eod_id).any():
                yield f"{name}: not every document ends with the end-of-document id {eod_id}"
                return


@dataclass(frozen=True)
class Ends:
    """Some documents that have sequences: where each stops, in tokens, and its length; int64, shape (num,)."""

    stops: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


def document_ends(index: ShardIndex) -> Iterator[Ends]:
    """The documents that have sequences, in pieces. The boundaries must rise."""
    item_bytes = index.dtype.itemsize
    for at in range(0, len(index.document_indices) - 1, DOCUMENTS):
        boundaries = np.array(index.document_indices[at : at + DOCUMENTS + 1])
        filled = boundaries[1:] > boundaries[:-1]
        first, last = boundaries[:-1][filled], boundaries[1:][filled] - 1
        stops = index.pointers[last] // item_bytes + index.lengths[last]
        yield Ends(stops, stops - index.pointers[first] // item_bytes)


def vocabulary_problems(name: str, scan: TokenScan, vocab_size: int | None) -> list[str]:
    if scan.lowest < 0 or (vocab_size is not None and scan.highest >= vocab_size):
        size = "" if vocab_size is None else f" of {vocab_size}"
        return [f"{name}.bin: ids from {scan.lowest} to {scan.highest} are outside the vocabulary{size}"]
    return []


def open_pair(prefix: Path) -> tuple[npt.NDArray[Any], ShardIndex]:
    """The tokens and the index of `prefix`.bin/.idx, mapped, also where they do not belong together."""
    index = read_index(idx_path(prefix.parent, prefix.name))
    path = bin_path(prefix.parent, prefix.name)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if size % index.dtype.itemsize:
        raise DataError(
            f"{path} has {size} bytes, which are no whole {index.dtype.name} tokens: it was cut. Restore it."
        )
    return map_tokens(path, index.dtype), index


def _boundaries_rise(index: ShardIndex) -> bool:
    boundaries = index.document_indices
    return all(
        bool((np.diff(boundaries[at : at + SEQUENCES + 1]) >= 0).all()) for at in range(0, len(boundaries), SEQUENCES)
    )


def _places_follow(index: ShardIndex) -> bool:
    place = 0
    for at in range(0, len(index.lengths), SEQUENCES):
        lengths = index.lengths[at : at + SEQUENCES].astype(np.int64)
        ends = place + np.cumsum(lengths) * index.dtype.itemsize
        starts = ends - lengths * index.dtype.itemsize
        if lengths.min() < 0 or not np.array_equal(index.pointers[at : at + SEQUENCES], starts):
            return False
        place = int(ends[-1])
    return True
