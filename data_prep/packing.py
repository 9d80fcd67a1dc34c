r"""Whole documents put together in windows of equal size, beside the shards that hold them.

`NAME.packed_N` says which stretches of NAME.bin make up each window of N + 1 tokens: a model of N positions reads them
and predicts the last N (all numbers little-endian; W windows of P pieces together):

    offset          bytes      type      content
    0               8          bytes     magic, b"PACKED\0\0"
    8               8          uint64    version, 1
    16              8          uint64    N, the sequence length
    24              8          uint64    number of windows, W
    32              8          uint64    number of pieces, P
    40              8          uint64    number of tokens in all pieces
    48              8          uint64    documents that are spread over several windows
    56              8          uint64    as many as would be, if windows were cut from one document after the other
    64              16         bytes     xxh3-128 of NAME.idx
    80              16         bytes     xxh3-128 of all bytes of this file but these
    96              8 (W+1)    int64     first piece of each window, then P
    104 + 8 W       8 P        int64     where each piece starts in the .bin, in tokens
    104 + 8 W + 8 P 4 P        int32     length of each piece, in tokens

Worked total: 4 documents of 5, 0, 3 and 11 tokens with N = 7 make windows of 8 tokens. The longest is cut into pieces
of 8 and 4, of which the second starts with the last token of the first, so that each token but the first is predicted
once. Windows: 8; 5 + 3; 4. With W = 3 and P = 4 the file has 104 + 24 + 32 + 16 = 176 bytes, with first pieces 0 1 3 4,
starts 8 0 5 15 and lengths 8 5 3 4 (the order of windows is up to the writer; pieces lie as in the .bin).

`packed_N.json` is written last, and names the data set by its fingerprint: a packing of other data is refused.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import xxhash

from data_prep.errors import DataError
from data_prep.manifest import Manifest
from data_prep.records import read_record

MAGIC = b"PACKED\0\0"
VERSION = 1
HEADER = struct.Struct("<8s7Q16s")
CHECKSUM_BYTES = 16
TABLES = HEADER.size + CHECKSUM_BYTES


@dataclass(frozen=True, kw_only=True)
class PackedShard:
    """What one file says at its beginning; checksums are in hex."""

    name: str
    num_windows: int
    num_pieces: int
    num_tokens: int
    num_cut: int
    num_cut_by_concatenation: int
    idx_checksum: str
    checksum: str

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return TABLES + 8 * (self.num_windows + 1) + 12 * self.num_pieces


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What `packed_N.json` says.

    Attributes:
        fingerprint: of the data set, as its manifest has it.
    """

    seq_len: int
    fingerprint: str
    shards: tuple[PackedShard, ...]

    @property
    def num_windows(self) -> int:
        return sum(shard.num_windows for shard in self.shards)

    @property
    def num_cut(self) -> int:
        """Documents that are spread over several windows."""
        return sum(shard.num_cut for shard in self.shards)

    @property
    def num_cut_by_concatenation(self) -> int:
        """Documents that would be, if windows were cut from one document of a shard after the other."""
        return sum(shard.num_cut_by_concatenation for shard in self.shards)

    @property
    def fill(self) -> float | None:
        """The share of the windows' tokens that are text; None if there are no windows."""
        room = self.num_windows * window_length(self.seq_len)
        return sum(shard.num_tokens for shard in self.shards) / room if room else None


@dataclass(frozen=True, kw_only=True)
class WindowTable:
    """The windows of one shard.

    Attributes:
        first_pieces: int64, shape (num_windows + 1,): window w has the pieces from first_pieces[w] to
            first_pieces[w + 1].
        starts: int64, shape (num_pieces,), in tokens from the beginning of the .bin.
        lengths: int32, shape (num_pieces,), in tokens.
    """

    first_pieces: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]


def window_length(seq_len: int) -> int:
    """Tokens of a window: those that a model of `seq_len` positions reads, and the one after."""
    return seq_len + 1


def packed_path(folder: Path, name: str, seq_len: int) -> Path:
    return folder / f"{name}.packed_{seq_len}"


def record_path(folder: Path, seq_len: int) -> Path:
    return folder / f"packed_{seq_len}.json"


def write_windows(
    file: BinaryIO,
    windows: WindowTable,
    *,
    seq_len: int,
    num_cut: int,
    num_cut_by_concatenation: int,
    idx_checksum: str,
) -> None:
    """Write a `NAME.packed_N`."""
    header = HEADER.pack(
        MAGIC,
        VERSION,
        seq_len,
        len(windows.first_pieces) - 1,
        len(windows.starts),
        int(windows.lengths.sum(dtype=np.int64)),
        num_cut,
        num_cut_by_concatenation,
        bytes.fromhex(idx_checksum),
    )
    tables = [
        windows.first_pieces.astype("<i8").data,
        windows.starts.astype("<i8").data,
        windows.lengths.astype("<i4").data,
    ]
    checksum = xxhash.xxh3_128(header)
    for table in tables:
        checksum.update(table)
    for part in (header, checksum.digest(), *tables):
        file.write(part)


def read_packed_shard(folder: Path, name: str, seq_len: int, *, deep: bool = False) -> PackedShard:
    """What the file of a shard says at its beginning, after a check of its size.

    Args:
        deep: read all of it, and compare its checksum.

    Raises:
        DataError: it is missing, cut, or not of this format, or its bytes changed.
    """
    path = packed_path(folder, name, seq_len)
    try:
        with path.open("rb") as file:
            raw, size = file.read(TABLES), os.fstat(file.fileno()).st_size
            shard = _unpack(path, raw, name=name, seq_len=seq_len)
            if size != shard.num_bytes:
                raise _damaged(path, f"has {size} bytes, its beginning says {shard.num_bytes}")
            if deep and shard.checksum != xxhash.xxh3_128_hexdigest(raw[: HEADER.size] + file.read()):
                raise _damaged(path, "is damaged: its bytes changed (checksum)")
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror}") from error
    return shard


def _unpack(path: Path, raw: bytes, *, name: str, seq_len: int) -> PackedShard:
    if len(raw) < TABLES or not raw.startswith(MAGIC):
        raise _damaged(path, f"does not start with {MAGIC!r}")
    _, version, found_seq_len, num_windows, num_pieces, num_tokens, num_cut, by_concatenation, idx = HEADER.unpack(
        raw[: HEADER.size]
    )
    if (version, found_seq_len) != (VERSION, seq_len):
        raise _damaged(path, f"has version {version} for windows of {found_seq_len}, not {VERSION} for {seq_len}")
    return PackedShard(
        name=name,
        num_windows=num_windows,
        num_pieces=num_pieces,
        num_tokens=num_tokens,
        num_cut=num_cut,
        num_cut_by_concatenation=by_concatenation,
        idx_checksum=idx.hex(),
        checksum=raw[HEADER.size :].hex(),
    )


def read_windows(folder: Path, name: str, seq_len: int) -> WindowTable:
    """The windows of a shard, as views of a memory map.

    Raises:
        DataError: as `read_packed_shard` does.
    """
    shard = read_packed_shard(folder, name, seq_len)
    content = np.memmap(packed_path(folder, name, seq_len), mode="r")
    starts = TABLES + 8 * (shard.num_windows + 1)
    lengths = starts + 8 * shard.num_pieces
    return WindowTable(
        first_pieces=np.asarray(content[TABLES:starts].view("<i8")),
        starts=np.asarray(content[starts:lengths].view("<i8")),
        lengths=np.asarray(content[lengths:].view("<i4")),
    )


def read_packing(folder: Path, seq_len: int, manifest: Manifest) -> Packing:
    """The packing of the data set in `folder`; the files of its shards are not opened.

    Raises:
        DataError: there is none for windows of this size, or it is of other data.
    """
    path = record_path(folder, seq_len)
    try:
        packing = read_record(path, Packing, remedy=remedy(folder, seq_len))
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is not packed for a sequence length of {seq_len}: there is no {path.name}. "
            f"{remedy(folder, seq_len)}"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    found, expected = (packing.seq_len, packing.fingerprint), (seq_len, manifest.fingerprint)
    if found != expected:
        raise DataError(
            f"{path} packs other data: its sequence length and fingerprint are {found}, those of the data set "
            f"{expected}. {remedy(folder, seq_len)}"
        )
    return packing


def remedy(folder: Path, seq_len: int) -> str:
    """What to do about a packing that is missing or damaged."""
    return f"Run `pretrain data pack {folder} --seq-len {seq_len}`."


def _damaged(path: Path, state: str) -> DataError:
    seq_len = path.suffix.removeprefix(".packed_")
    return DataError(f"{path} {state}. Run `pretrain data pack {path.parent} --seq-len {seq_len}` again.")
