"""Packing a data set: which documents make up a window, found once, so that few of them are cut."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.atomic import remove_abandoned, replacing
from data_prep.checksum import file_checksum
from data_prep.data_sets.best_fit import best_fit_decreasing
from data_prep.errors import DataError
from data_prep.format import ShardIndex, idx_path, read_index
from data_prep.manifest import Shard, load_manifest
from data_prep.packing import (
    PackedShard,
    Packing,
    WindowTable,
    packed_path,
    read_packed_shard,
    record_path,
    window_length,
    write_windows,
)
from data_prep.progress import progress
from data_prep.records import to_json

Numbers = npt.NDArray[np.int64]


def pack(folder: Path, *, seq_len: int) -> Packing:
    """Pack the documents of the data set in `folder` for models of `seq_len` positions, shard by shard.

    Shards that an earlier start packed are kept if they are whole. Memory: about 100 bytes a document of a shard.

    Raises:
        DataError: there is no data set, one of its files is damaged, or the disk is full.
    """
    manifest = load_manifest(folder)
    remove_abandoned(folder, f"*packed_{seq_len}*")
    with progress("pack", total=manifest.num_documents, unit="documents") as shown:
        shards = []
        for shard in manifest.shards:
            shards.append(_kept(folder, shard, seq_len) or _pack_shard(folder, shard, seq_len))
            shown.update(shard.num_documents)
    packing = Packing(seq_len=seq_len, fingerprint=manifest.fingerprint, shards=tuple(shards))
    with replacing(record_path(folder, seq_len)) as temporary:
        temporary.write_bytes(to_json(packing))
    return packing


def _kept(folder: Path, shard: Shard, seq_len: int) -> PackedShard | None:
    """What an earlier start made of a shard, if it is whole and of this shard."""
    if not packed_path(folder, shard.name, seq_len).exists():
        return None
    try:
        found = read_packed_shard(folder, shard.name, seq_len, deep=True)
    except DataError:
        return None  # it is made again
    return found if found.idx_checksum == shard.idx_checksum else None


def _pack_shard(folder: Path, shard: Shard, seq_len: int) -> PackedShard:
    path = idx_path(folder, shard.name)
    if file_checksum(path) != shard.idx_checksum:
        raise DataError(f"{path}: its bytes changed (checksum). Run `pretrain data verify {folder}`.")
    starts, lengths = _documents(read_index(path))
    windows, num_cut = pack_documents(starts, lengths, seq_len)
    with replacing(packed_path(folder, shard.name, seq_len)) as temporary, temporary.open("wb") as file:
        write_windows(
            file,
            windows,
            seq_len=seq_len,
            num_cut=num_cut,
            num_cut_by_concatenation=num_cut_by_concatenation(starts, lengths, seq_len),
            idx_checksum=shard.idx_checksum,
        )
    return read_packed_shard(folder, shard.name, seq_len)


def _documents(index: ShardIndex) -> tuple[Numbers, Numbers]:
    """Where the documents of a shard start, and how long they are, in tokens; int64, shape (num_documents,)."""
    ends = np.cumsum(np.append(np.int64(0), index.lengths))
    boundaries = ends[index.document_indices]
    return boundaries[:-1], np.diff(boundaries)


def pack_documents(starts: Numbers, lengths: Numbers, seq_len: int) -> tuple[WindowTable, int]:
    """The windows of documents, and the number of documents that are spread over several.

    A document that fits into a window is in one as a whole. A longer one is cut into windows of which each starts with
    the last token of the one before, so that every token but the first is predicted once; its rest is packed like a
    document. Pieces lie in a window as they do in the shard: not by length, as every window would end with its
    shortest.

    Args:
        starts, lengths: in tokens, int64, shape (num_documents,).
    """
    capacity = window_length(seq_len)
    assert capacity < 2**31, "lengths of pieces are int32"
    num_pieces = np.where(lengths > 0, np.maximum(-(-(lengths - 1) // seq_len), 1), 0)
    documents = np.repeat(np.arange(len(lengths)), num_pieces)
    numbers = np.arange(len(documents)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
    piece_lengths = np.minimum(lengths[documents] - numbers * seq_len, capacity)
    piece_starts = starts[documents] + numbers * seq_len
    bins = best_fit_decreasing(piece_lengths, capacity)
    order = np.lexsort((piece_starts, bins))
    windows = WindowTable(
        first_pieces=np.append(0, np.cumsum(np.bincount(bins))).astype(np.int64),
        starts=piece_starts[order],
        lengths=piece_lengths[order].astype(np.int32),
    )
    return windows, int((num_pieces > 1).sum())


def num_cut_by_concatenation(starts: Numbers, lengths: Numbers, seq_len: int) -> int:
    """How many documents are not in one window as a whole, if windows are cut from one document after the other."""
    last = starts + np.maximum(lengths - 1, 0)
    return int((last > (starts // seq_len + 1) * seq_len).sum())
