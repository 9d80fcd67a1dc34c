"""The oracle of a data set: everything that its files must agree on, read again from the disk."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from data_prep.errors import DataError
from data_prep.format import ShardIndex, bin_path, idx_path, open_shard
from data_prep.manifest import Manifest, Shard, load_manifest
from data_prep.progress import progress
from data_prep.tokenizers import load

CHUNK_BYTES = 16 * 2**20


def verify(folder: Path) -> Manifest:
    """The manifest of the data set in `folder`, after its files were read and compared with it, byte for byte.

    Raises:
        DataError: there is no data set, or it is damaged; names every problem found.
    """
    manifest = load_manifest(folder)
    problems = list(_manifest_problems(folder, manifest))
    with progress("verify", total=sum(shard.bin_bytes for shard in manifest.shards)) as shown:
        for shard in manifest.shards:
            problems += _shard_problems(folder, shard, manifest, shown.update)
    if problems:
        raise DataError(f"{folder} is damaged:\n  " + "\n  ".join(problems) + "\nTokenize again, or restore the files.")
    return manifest


def _manifest_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    if manifest.fingerprint != manifest.expected_fingerprint():
        yield f"manifest.json: fingerprint={manifest.fingerprint} does not follow from its other fields"
    for name in ("num_documents", "num_tokens"):
        total = sum(getattr(shard, name) for shard in manifest.shards)
        if getattr(manifest, name) != total:
            yield f"manifest.json: {name}={getattr(manifest, name)}, but its shards sum to {total}"
    named = {
        path.name for shard in manifest.shards for path in (bin_path(folder, shard.name), idx_path(folder, shard.name))
    }
    for path in sorted(folder.glob("shard_*")):
        if path.name not in named:
            yield f"{path.name} is not named by manifest.json"
    tokenizer_folder = manifest.tokenizer_folder(folder)
    if tokenizer_folder.is_dir() and load(tokenizer_folder).sha256 != manifest.tokenizer.sha256:
        yield f"{tokenizer_folder} is not the tokenizer that made the data set: its sha256 is another"


def _shard_problems(folder: Path, shard: Shard, manifest: Manifest, on_bytes: Callable[[int], object]) -> Iterator[str]:
    try:
        tokens, index = open_shard(folder, shard.name)
    except DataError as error:
        yield str(error)
        return
    if index.dtype.name != manifest.dtype:
        yield f"{shard.name}.idx: dtype={index.dtype.name}, but the manifest says {manifest.dtype}"
    if (len(index.lengths), len(tokens)) != (shard.num_documents, shard.num_tokens):
        yield (
            f"{shard.name}.idx: {len(index.lengths)} documents, {len(tokens)} tokens, but the manifest says "
            f"{shard.num_documents}, {shard.num_tokens}"
        )
    yield from _index_problems(shard.name, tokens, index, manifest.eod_id)
    if xxhash.xxh3_128_hexdigest(idx_path(folder, shard.name).read_bytes()) != shard.idx_checksum:
        yield f"{shard.name}.idx: its bytes changed (checksum)"
    yield from _token_problems(shard, tokens, manifest.vocab_size, on_bytes)


def _index_problems(name: str, tokens: npt.NDArray[np.integer], index: ShardIndex, eod_id: int | None) -> Iterator[str]:
    ends = np.cumsum(index.lengths, dtype=np.int64)
    starts = ends - index.lengths
    if (index.lengths < 0).any() or not np.array_equal(index.pointers, starts * index.dtype.itemsize):
        yield f"{name}.idx: the places of the documents do not follow from their lengths"
    elif eod_id is not None and ((index.lengths == 0).any() or (tokens[ends - 1] != eod_id).any()):
        yield f"{name}: not every document ends with the end-of-document id {eod_id}"
    if not np.array_equal(index.document_indices, np.arange(len(index.lengths) + 1)):
        yield f"{name}.idx: the document boundaries are not 0, 1, 2 ..."


def _token_problems(
    shard: Shard, tokens: npt.NDArray[np.integer], vocab_size: int, on_bytes: Callable[[int], object]
) -> Iterator[str]:
    checksum = xxhash.xxh3_128()
    step = CHUNK_BYTES // tokens.itemsize
    lowest, highest = 0, 0
    for start in range(0, len(tokens), step):
        chunk = tokens[start : start + step]
        checksum.update(np.ascontiguousarray(chunk).data)
        lowest, highest = min(lowest, int(chunk.min())), max(highest, int(chunk.max()))
        on_bytes(chunk.nbytes)
    if lowest < 0 or highest >= vocab_size:
        yield f"{shard.name}.bin: ids from {lowest} to {highest} are outside the vocabulary of {vocab_size}"
    if checksum.hexdigest() != shard.bin_checksum:
        yield f"{shard.name}.bin: its bytes changed (checksum)"
