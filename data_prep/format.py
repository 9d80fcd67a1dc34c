r"""The bytes of a shard: a pair of files that Megatron-LM, NeMo and GPT-NeoX read and write too.

`NAME.bin` holds the token ids of all documents, one after the other, little-endian, nothing between them.
`NAME.idx` says where each document starts (all numbers little-endian; N documents, each stored as one sequence):

    offset        bytes     type      content
    0             9         bytes     magic, b"MMIDIDX\0\0"
    9             8         uint64    version, 1
    17            1         uint8     dtype code of the token ids (DTYPE_CODES)
    18            8         uint64    number of sequences, N
    26            8         uint64    number of document boundaries, N + 1
    34            4 N       int32     length of each sequence, in tokens
    34 + 4 N      8 N       int64     place of each sequence in the .bin, in bytes
    34 + 12 N     8 (N+1)   int64     index of the first sequence of each document, then N

A worked total: 3 documents of 5, 0 and 7 uint16 tokens make a .bin of (5 + 0 + 7) * 2 = 24 bytes and an .idx of
34 + 4 * 3 + 8 * 3 + 8 * 4 = 102 bytes, with lengths 5 0 7, places 0 10 10, boundaries 0 1 2 3.

Source: Megatron-LM, megatron/core/datasets/indexed_dataset.py, `_IndexWriter`.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

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
MAX_DOCUMENT_TOKENS = 2**31 - 1


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


def bin_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def idx_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.idx"


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest dtype of the format that holds the ids 0 to `vocab_size - 1`: uint16, or int32 above 65,536."""
    return DTYPE_CODES[8] if vocab_size <= 2**16 else DTYPE_CODES[4]


def idx_bytes(num_documents: int) -> int:
    """The size of an .idx with one sequence a document, in bytes."""
    return HEADER.size + 12 * num_documents + 8 * (num_documents + 1)


def write_index(file: BinaryIO, *, lengths: npt.NDArray[np.int32], dtype: np.dtype[Any]) -> None:
    """Write the .idx of documents with these `lengths` in tokens, shape (num_documents,), one sequence each."""
    [code] = [code for code, known in DTYPE_CODES.items() if known == dtype]
    num_documents = len(lengths)
    ends = np.cumsum(lengths, dtype="<i8") * dtype.itemsize
    pointers = np.concatenate([np.zeros(min(1, num_documents), "<i8"), ends[:-1]])
    file.write(HEADER.pack(MAGIC, VERSION, code, num_documents, num_documents + 1))
    file.write(lengths.astype("<i4").data)
    file.write(pointers.astype("<i8").data)
    file.write(np.arange(num_documents + 1, dtype="<i8").data)


def read_index(path: Path) -> ShardIndex:
    """The content of an .idx as views of a memory map; nothing but the header is read yet.

    Raises:
        DataError: the file is missing, is not of this format, or its size is not what its header says.
    """
    header = _read_header(path)
    _, _, code, num_sequences, num_boundaries = header
    expected = HEADER.size + 12 * num_sequences + 8 * num_boundaries
    found = path.stat().st_size
    if found != expected:
        raise DataError(
            f"{path} has {found} bytes, its header says {expected}: it was cut or overwritten. Make it again."
        )
    content = np.memmap(path, mode="r")
    cuts = np.cumsum([HEADER.size, 4 * num_sequences, 8 * num_sequences])
    return ShardIndex(
        dtype=DTYPE_CODES[code],
        lengths=content[cuts[0] : cuts[1]].view("<i4"),
        pointers=content[cuts[1] : cuts[2]].view("<i8"),
        document_indices=content[cuts[2] :].view("<i8"),
    )


def _read_header(path: Path) -> tuple[bytes, int, int, int, int]:
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER.size)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if len(raw) < HEADER.size or not raw.startswith(MAGIC):
        raise DataError(f"{path} is not the index of a shard: it does not start with {MAGIC!r}.")
    magic, version, code, num_sequences, num_boundaries = HEADER.unpack(raw)
    if version != VERSION or code not in DTYPE_CODES:
        raise DataError(
            f"{path} has version {version} and dtype code {code}; known are version 1, codes {[*DTYPE_CODES]}."
        )
    return magic, version, code, num_sequences, num_boundaries


def open_shard(folder: Path, name: str) -> tuple[npt.NDArray[Any], ShardIndex]:
    """The token ids, shape (num_tokens,), as a read-only memory map, and the index of the shard `name`.

    Raises:
        DataError: one of the two files is missing, cut, or does not belong to the other.
    """
    index = read_index(idx_path(folder, name))
    path = bin_path(folder, name)
    expected = index.num_tokens * index.dtype.itemsize
    found = path.stat().st_size if path.is_file() else None
    if found != expected:
        state = "is missing" if found is None else f"has {found} bytes"
        raise DataError(
            f"{path} {state}, but its .idx describes {expected} bytes. Tokenize again, or restore the pair."
        )
    if expected == 0:  # an empty file cannot be mapped
        return np.zeros(0, index.dtype), index
    return np.memmap(path, dtype=index.dtype, mode="r"), index
