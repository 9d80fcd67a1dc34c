"""All documents of some data sets in a random order, in bounded memory: into buckets, then each bucket by itself.

Each document has a 64-bit key, a function of the seed and of its number, and the order is that of the keys. A bucket
takes a range of keys, so that sorted buckets, one after the other, are the sorted whole: the order and every byte are
the same whatever the memory, and however the documents were spread over shards.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.atomic import creating_folder, refuse_occupied
from data_prep.data_sets.buckets import HEAD, SEQUENCE_LENGTH, Buckets
from data_prep.data_sets.data_set import DataSet
from data_prep.data_sets.merge import merged_manifest, open_mergeable
from data_prep.data_sets.shard_series import SHARD_TOKENS, ShardSeries
from data_prep.errors import DataError
from data_prep.format import idx_bytes, metadata_path
from data_prep.manifest import Manifest, Shard, save_manifest
from data_prep.progress import Progress, progress

MEMORY_BYTES = 512 * 10**6
MAX_BUCKETS = 2**16
TEXT_PER_COMPRESSED = 8  # how far metadata grows when it is decompressed, at a guess


def shuffle(
    folders: Sequence[Path],
    out: Path,
    *,
    seed: int,
    memory_bytes: int = MEMORY_BYTES,
    shard_tokens: int = SHARD_TOKENS,
) -> Manifest:
    """Makes the data set `out` of all documents of `folders`, in an order that depends on `seed` and them alone.

    The tokens are written twice and read twice; beside the result, the disk holds a part of them once more meanwhile.
    What is kept beside the tokens goes with its document.

    Args:
        memory_bytes: about what is used at most, but for documents longer than an eighth of it.
        shard_tokens: a shard is closed by the document that reaches this many.

    Raises:
        DataError: as for `merge`, or the disk is too small.
    """
    refuse_occupied(out)
    data_sets = open_mergeable(folders)
    with creating_folder(out) as folder:
        _refuse_small_disk(data_sets, folder, out)
        with progress("shuffle", total=2 * sum(map(_token_bytes, data_sets))) as shown:
            buckets = _scattered(data_sets, folder / "buckets", seed, memory_bytes, shown)
            shards = _gathered(buckets, folder, memory_bytes, shard_tokens, shown)
        shutil.rmtree(folder / "buckets")
        manifest = merged_manifest(data_sets, shards, out)
        assert manifest.num_documents == sum(map(len, data_sets))
        assert manifest.num_tokens == sum(one.manifest.num_tokens for one in data_sets)
        save_manifest(manifest, folder)
    return manifest


def _scattered(data_sets: Sequence[DataSet], folder: Path, seed: int, memory_bytes: int, shown: Progress) -> Buckets:
    """The first pass: each document in the bucket of its key."""
    count = -(-4 * sum(map(_bucket_bytes, data_sets)) // memory_bytes)
    buckets = Buckets(
        folder,
        count=min(max(count, 1), MAX_BUCKETS),
        dtype=data_sets[0].dtype,
        sentences=data_sets[0].manifest.sequences_are_sentences,
        metadata=any(one.has_metadata for one in data_sets),
    )
    first = 0
    for data_set in data_sets:
        for batch in data_set.batches(num_bytes=memory_bytes // 8, metadata=buckets.metadata):
            keys = document_keys(seed, first + batch.first, len(batch.lengths))
            buckets.add(keys, batch)
            shown.update(batch.tokens.nbytes)
        first += len(data_set)
    return buckets


def _gathered(
    buckets: Buckets, folder: Path, memory_bytes: int, shard_tokens: int, shown: Progress
) -> tuple[Shard, ...]:
    """The second pass: the buckets, each sorted by key, as shards."""
    with ShardSeries(folder, buckets.dtype, shard_tokens=shard_tokens, metadata=buckets.metadata) as series:
        for bucket in range(buckets.count):
            for part in buckets.sorted(bucket, memory_bytes // 8):
                series.append(part)
                shown.update(part.tokens.nbytes)
            buckets.remove(bucket)
        return series.finish()


def _refuse_small_disk(data_sets: Sequence[DataSet], folder: Path, out: Path) -> None:
    """All buckets, then shards that take their place; the indices, and a shard that is not yet one, beside them."""
    indices = sum(idx_bytes(one.manifest.num_sequences, len(one)) for one in data_sets)
    needed = sum(map(_bucket_bytes, data_sets)) + indices + sum(map(_token_bytes, data_sets)) // 20
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"shuffling needs about {needed / 1e9:.1f} GB beside {out}, where {free / 1e9:.1f} GB are free: all tokens "
            "are written to buckets before they become shards. Free or choose another disk."
        )


def _token_bytes(data_set: DataSet) -> int:
    return sum(shard.bin_bytes for shard in data_set.manifest.shards)


def _bucket_bytes(data_set: DataSet) -> int:
    """What the buckets take on the disk; metadata, which is compressed in a data set, by a guess."""
    paths = [
        metadata_path(data_set.folder, shard.name)
        for shard in data_set.manifest.shards
        if shard.metadata_checksum is not None
    ]
    lines = TEXT_PER_COMPRESSED * sum(path.stat().st_size for path in paths)
    sequences = data_set.manifest.num_sequences if data_set.manifest.sequences_are_sentences else 0
    return _token_bytes(data_set) + HEAD.itemsize * len(data_set) + SEQUENCE_LENGTH.itemsize * sequences + lines


def document_keys(seed: int, first: int, count: int) -> npt.NDArray[np.uint64]:
    """The keys of the documents `first` to `first + count`, shape (count,), no two equal.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014 (the finalizer of SplitMix64).
    """
    numbers = np.arange(first, first + count, dtype=np.uint64)
    start = _mix(np.array([seed % 2**64], np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    return _mix(_mix(numbers ^ start) + start)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
