r"""The bytes of a shard: a pair of files that Megatron-LM, NeMo and GPT-NeoX read and write too.

`NAME.bin` holds the token ids of all documents, one after the other, little-endian, nothing between them. A document is
a run of sequences: a single one, or one for each of its sentences (`pretrain data tokenize --split-sentences`).
`NAME.idx` says where each sequence and each document starts (all numbers little-endian; N sequences in D documents):

    offset        bytes     type      content
    0             9         bytes     magic, b"MMIDIDX\0\0"
    9             8         uint64    version, 1
    17            1         uint8     dtype code of the token ids (DTYPE_CODES)
    18            8         uint64    number of sequences, N
    26            8         uint64    number of document boundaries, D + 1
    34            4 N       int32     length of each sequence, in tokens
    34 + 4 N      8 N       int64     place of each sequence in the .bin, in bytes
    34 + 12 N     8 (D+1)   int64     index of the first sequence of each document, then N

Worked totals: 3 documents of 5, 0 and 7 uint16 tokens, a sequence each, make a .bin of (5 + 0 + 7) * 2 = 24 bytes and
an .idx of 34 + 4 * 3 + 8 * 3 + 8 * 4 = 102 bytes, with lengths 5 0 7, places 0 10 10, boundaries 0 1 2 3. A document of
two sentences, of 3 and 2 tokens, and one of a sentence of 7 tokens make the same .bin and an .idx of 34 + 4 * 3 + 8 * 3
+ 8 * 3 = 94 bytes, with lengths 3 2 7, places 0 6 10, boundaries 0 2 3.

Source: Megatron-LM, megatron/core/datasets/indexed_dataset.py, `_IndexWriter`.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.errors import DataError

MAGIC = b"MMIDIDX\0\0"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
DTYPE_CODES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<u1"),
    2: np.dtype("<i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    8: np.dtype("<u2"),
}
MAX_SEQUENCE_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class ShardIndex:
    """What an .idx says.

    Attributes:
        dtype: of the token ids.
        lengths: int32, shape (num_sequences,), tokens in each sequence.
        pointers: int64, shape (num_sequences,), where each starts in the .bin, in bytes.
        document_indices: int64, shape (num_documents + 1,), the first sequence of each document, then num_sequences.
    """

    dtype: np.dtype[Any]
    lengths: npt.NDArray[np.int32]
    pointers: npt.NDArray[np.int64]
    document_indices: npt.NDArray[np.int64]

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def num_documents(self) -> int:
        return len(self.document_indices) - 1

    def documents(self, first: int, last: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of the documents `first` to `last`: the lengths of their sequences, and how many each has.

        Returns:
            int64, shape (num_sequences,) and (last - first,).

        Raises:
            DataError: the boundaries do not rise, or a length is negative.
        """
        boundaries = np.array(self.document_indices[first : last + 1])
        counts = np.diff(boundaries)
        if counts.min(initial=0) >= 0 and 0 <= boundaries[0] <= boundaries[-1] <= len(self.lengths):
            lengths = self.lengths[boundaries[0] : boundaries[-1]].astype(np.int64)
            if lengths.min(initial=0) >= 0:
                return lengths, counts
        raise DataError(f"its documents {first} to {last - 1} have negative lengths, or begin before the one before")


def bin_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def idx_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.idx"


def metadata_path(folder: Path, name: str) -> Path:
    """Where what is kept of each document beside its tokens lies: a line of JSON a document, compressed."""
    return folder / f"{name}.metadata.jsonl.zst"


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest dtype of the format that holds the ids 0 to `vocab_size - 1`: uint16, or int32 above 65,536."""
    return DTYPE_CODES[8] if vocab_size <= 2**16 else DTYPE_CODES[4]


def idx_bytes(num_sequences: int, num_documents: int) -> int:
    """The size of an .idx, in bytes."""
    return HEADER.size + 12 * num_sequences + 8 * (num_documents + 1)


def write_index(
    file: BinaryIO,
    *,
    lengths: npt.NDArray[np.int32],
    document_indices: npt.NDArray[np.int64],
    dtype: np.dtype[Any],
) -> None:
    """Write an .idx.

    Args:
        lengths: of the sequences, in tokens, shape (num_sequences,).
        document_indices: the first sequence of each document, then num_sequences, shape (num_documents + 1,).
        dtype: of the token ids.
    """
    [code] = [code for code, known in DTYPE_CODES.items() if known == dtype]
    ends = np.cumsum(lengths, dtype="<i8") * dtype.itemsize
    pointers = np.concatenate([np.zeros(min(1, len(lengths)), "<i8"), ends[:-1]])
    file.write(HEADER.pack(MAGIC, VERSION, code, len(lengths), len(document_indices)))
    file.write(lengths.astype("<i4").data)
    file.write(pointers.astype("<i8").data)
    file.write(document_indices.astype("<i8").data)


@dataclass(frozen=True, kw_only=True)
class IndexHeader:
    """What an .idx says in its first and last bytes.

    Attributes:
        dtype: of the token ids.
        bin_bytes: the size of the .bin it describes: where its last sequence ends.
    """

    dtype: np.dtype[Any]
    num_sequences: int
    num_boundaries: int
    bin_bytes: int


def read_header(path: Path) -> IndexHeader:
    """The header of an .idx, checked against the ends of its three tables: a few small reads, whatever its size.

    A flip of any one of the bits that are read is refused, and so are negative numbers. What is not read here, the
    inner lengths and places, is compared by `pretrain data verify`.

    Raises:
        DataError: the file is missing, is not of this format, its size is not what its header says, or its ends
            contradict each other.
    """
    try:
        with path.open("rb", buffering=0) as file:
            raw, found = file.read(HEADER.size), os.fstat(file.fileno()).st_size
            code, num_sequences, num_boundaries = _unpack(path, raw)
            expected = HEADER.size + 12 * num_sequences + 8 * num_boundaries
            if found != expected:
                raise DataError(
                    f"{path} has {found} bytes, its header says {expected}: it was cut or overwritten. Make it again."
                )
            ends = _read_ends(file.fileno(), num_sequences, num_boundaries)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    item_bytes = DTYPE_CODES[code].itemsize
    if not ends.agree(num_sequences, item_bytes):
        raise DataError(f"{path} contradicts itself ({ends}): it was overwritten. Make it again.")
    return IndexHeader(
        dtype=DTYPE_CODES[code],
        num_sequences=num_sequences,
        num_boundaries=num_boundaries,
        bin_bytes=ends.last_place + ends.last_length * item_bytes,
    )


def _unpack(path: Path, raw: bytes) -> tuple[int, int, int]:
    """The dtype code, the number of sequences, and the number of boundaries."""
    if len(raw) < HEADER.size or not raw.startswith(MAGIC):
        raise DataError(f"{path} is not the index of a shard: it does not start with {MAGIC!r}.")
    _, version, code, num_sequences, num_boundaries = HEADER.unpack(raw)
    if version != VERSION or code not in DTYPE_CODES:
        raise DataError(
            f"{path} has version {version} and dtype code {code}; known are version 1, codes {[*DTYPE_CODES]}."
        )
    return code, num_sequences, num_boundaries


class _Ends(NamedTuple):
    """The first and last entries of the tables of an .idx; 0 for those of no sequence, -1 for those of no boundary."""

    last_length: int
    first_place: int
    last_place: int
    first_boundary: int
    last_boundary: int

    def agree(self, num_sequences: int, item_bytes: int) -> bool:
        boundaries = (self.first_boundary, self.last_boundary)
        places = self.first_place == 0 <= self.last_place and self.last_place % item_bytes == 0
        return places and self.last_length >= 0 and boundaries == (0, num_sequences)


def _read_ends(descriptor: int, num_sequences: int, num_boundaries: int) -> _Ends:
    def number(kind: str, at: int) -> int:
        [value] = struct.unpack(kind, os.pread(descriptor, struct.calcsize(kind), at))
        return int(value)

    places = HEADER.size + 4 * num_sequences
    boundaries = places + 8 * num_sequences
    last = boundaries + 8 * (num_boundaries - 1)
    return _Ends(
        last_length=number("<i", places - 4) if num_sequences else 0,
        first_place=number("<q", places) if num_sequences else 0,
        last_place=number("<q", boundaries - 8) if num_sequences else 0,
        first_boundary=number("<q", boundaries) if num_boundaries else -1,
        last_boundary=number("<q", last) if num_boundaries else -1,
    )


def read_index(path: Path) -> ShardIndex:
    """The content of an .idx as views of a memory map; nothing but its header and ends is read yet.

    Raises:
        DataError: as `read_header` does.
    """
    return _map_index(path, read_header(path))


def _map_index(path: Path, header: IndexHeader) -> ShardIndex:
    content = np.memmap(path, mode="r")
    places = HEADER.size + 4 * header.num_sequences
    boundaries = places + 8 * header.num_sequences
    return ShardIndex(
        dtype=header.dtype,
        lengths=content[HEADER.size : places].view("<i4"),
        pointers=content[places:boundaries].view("<i8"),
        document_indices=content[boundaries:].view("<i8"),
    )


def open_shard(folder: Path, name: str) -> tuple[npt.NDArray[Any], ShardIndex]:
    """The token ids, shape (num_tokens,), as a read-only memory map, and the index of the shard `name`.

    Raises:
        DataError: one of the two files is missing, cut, or does not belong to the other.
    """
    header = read_header(idx_path(folder, name))
    path = bin_path(folder, name)
    found = path.stat().st_size if path.is_file() else None
    if found != header.bin_bytes:
        state = "is missing" if found is None else f"has {found} bytes"
        raise DataError(
            f"{path} {state}, but its .idx describes {header.bin_bytes} bytes. Tokenize again, or restore the pair."
        )
    index = _map_index(idx_path(folder, name), header)
    return map_tokens(path, header.dtype), index


def map_tokens(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The token ids in a .bin, shape (num_tokens,), as a read-only memory map."""
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.zeros(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")
