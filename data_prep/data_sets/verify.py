"""The oracle of a data set: everything that its files must agree on, read again from the disk."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data_prep.accounting import Counters
from data_prep.checksum import file_checksum
from data_prep.data_sets.pair import SEQUENCES, index_problems, open_pair, scan_tokens, vocabulary_problems
from data_prep.data_sets.repair import find_shift
from data_prep.data_sets.verify_packing import packing_problems
from data_prep.errors import DataError
from data_prep.format import ShardIndex, bin_path, idx_path, metadata_path, open_shard
from data_prep.manifest import FILE_NAME, Manifest, Shard, read_manifest, size_problems
from data_prep.metadata import MetadataReader
from data_prep.progress import progress
from data_prep.records import to_json
from data_prep.tokenizer.loading import load
from data_prep.tokenizing.commits import commit_problems

DATA = (".bin", ".idx", metadata_path(Path(), "").name)  # endings of what a shard consists of
LINES = 2**16  # of metadata, looked at together


def verify(folder: Path) -> Manifest:
    """The manifest of the data set in `folder`, after its files were read and compared with it, byte for byte.

    Raises:
        DataError: there is no data set, or it is damaged; names every problem found.
    """
    manifest = read_manifest(folder)
    problems = [
        *_manifest_problems(folder, manifest),
        *_stray_files(folder, manifest),
        *_tokenizer_problems(folder, manifest),
        *commit_problems(folder, manifest.shards),
        *packing_problems(folder, manifest),
    ]
    wrong_sizes = size_problems(folder, manifest)
    with progress("verify", total=sum(shard.bin_bytes for shard in manifest.shards)) as shown:
        for shard in manifest.shards:
            if shard in wrong_sizes:
                problems += _shift_problems(folder, shard, manifest) or wrong_sizes[shard]
            else:
                problems += _shard_problems(folder, shard, manifest, shown.update)
    if problems:
        raise DataError(f"{folder} is damaged:\n  " + "\n  ".join(problems) + "\nTokenize again, or restore the files.")
    return manifest


def _manifest_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    if manifest.fingerprint != manifest.expected_fingerprint():
        yield f"{FILE_NAME}: fingerprint={manifest.fingerprint} does not follow from its other fields"
    if manifest.checksum != manifest.expected_checksum():
        yield f"{FILE_NAME}: checksum={manifest.checksum} does not follow from its other fields: one was changed"
    elif (folder / FILE_NAME).read_bytes() != to_json(manifest):
        yield f"{FILE_NAME}: its bytes are not those that were written: it was cut, or written by another program"
    for name in ("num_documents", "num_tokens"):
        for parts in (manifest.shards, manifest.sources):
            total = sum(getattr(part, name) for part in parts)
            if getattr(manifest, name) != total:
                kind = "shards" if parts is manifest.shards else "sources"
                yield f"{FILE_NAME}: {name}={getattr(manifest, name)}, but its {kind} sum to {total}"
    if len({preparation.sentences is None for preparation in manifest.preparations}) > 1:
        yield f"{FILE_NAME}: some of its preparations made sentences, and some documents"
    for number, preparation in enumerate(manifest.preparations):
        counters = preparation.counters
        if not counters.is_complete():
            yield f"{FILE_NAME}: preparations[{number}]: {counters.lines} records, but not as many are accounted for"
    total = Counters.sum(preparation.counters for preparation in manifest.preparations).documents
    is_part = manifest.num_text_bytes is None  # a split: its preparations made the other part, too
    if manifest.preparations and (total < manifest.num_documents or (total > manifest.num_documents and not is_part)):
        yield f"{FILE_NAME}: num_documents={manifest.num_documents}, but its preparations made {total}"


def _stray_files(folder: Path, manifest: Manifest) -> Iterator[str]:
    named = {
        path.name
        for shard in manifest.shards
        for path in (
            bin_path(folder, shard.name),
            idx_path(folder, shard.name),
            *([metadata_path(folder, shard.name)] if shard.metadata_checksum else []),
        )
    }
    for path in sorted(folder.glob("shard_*")):
        if path.name.endswith(DATA) and path.name not in named:
            yield f"{path.name} is not named by {FILE_NAME}"


def _tokenizer_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    path = manifest.tokenizer_path(folder)
    if not path.exists():
        return
    try:
        sha256 = load(path).sha256
    except DataError as error:
        yield str(error)
        return
    if sha256 != manifest.tokenizer.sha256:
        yield f"{path} is not the tokenizer that made the data set: its sha256 is another"


def _shift_problems(folder: Path, shard: Shard, manifest: Manifest) -> list[str]:
    try:
        shift = find_shift(*open_pair(folder / shard.name), eod_id=manifest.eod_id)
    except DataError:
        return []  # the sizes are the problem
    return [] if shift is None else [f"{shard.name}: {shift.describe(folder)}"]


def _shard_problems(folder: Path, shard: Shard, manifest: Manifest, on_bytes: Callable[[int], object]) -> Iterator[str]:
    try:
        tokens, index = open_shard(folder, shard.name)
    except DataError as error:
        yield from _shift_problems(folder, shard, manifest) or [str(error)]
        return
    if index.dtype.name != manifest.dtype:
        yield f"{shard.name}.idx: dtype={index.dtype.name}, but the manifest says {manifest.dtype}"
    found = index.num_documents, len(index.lengths), len(tokens)
    expected = shard.num_documents, shard.num_sequences, shard.num_tokens
    if found != expected:
        yield f"{shard.name}.idx: documents, sequences and tokens are {found}, but the manifest says {expected}"
    yield from index_problems(shard.name, tokens, index, manifest.eod_id)
    yield from _sequence_problems(shard.name, index, are_sentences=manifest.sequences_are_sentences)
    if file_checksum(idx_path(folder, shard.name)) != shard.idx_checksum:
        yield f"{shard.name}.idx: its bytes changed (checksum)"
    scan = scan_tokens(tokens, on_bytes)
    yield from vocabulary_problems(shard.name, scan, manifest.vocab_size)
    if scan.checksum != shard.bin_checksum:
        yield f"{shard.name}.bin: its bytes changed (checksum)"
    if shard.metadata_checksum is not None:
        yield from _metadata_problems(metadata_path(folder, shard.name), shard)


def _sequence_problems(name: str, index: ShardIndex, *, are_sentences: bool) -> Iterator[str]:
    """What makes the sequences other ones than the manifest says: a document each, or its sentences."""
    if are_sentences:
        if any((index.lengths[at : at + SEQUENCES] == 0).any() for at in range(0, len(index.lengths), SEQUENCES)):
            yield f"{name}.idx: it holds sentences without tokens"
        return
    for at in range(0, len(index.document_indices), SEQUENCES):
        part = index.document_indices[at : at + SEQUENCES]
        if not np.array_equal(part, np.arange(at, at + len(part))):
            yield f"{name}.idx: the document boundaries are not 0, 1, 2 ..., as they are where a document is a sequence"
            return


def _metadata_problems(path: Path, shard: Shard) -> Iterator[str]:
    if file_checksum(path) != shard.metadata_checksum:
        yield f"{path.name}: its bytes changed (checksum)"
        return
    try:
        with MetadataReader(path) as reader:
            for at in range(0, shard.num_documents, LINES):
                reader.read(min(LINES, shard.num_documents - at))
            if not reader.at_end():
                yield f"{path.name}: it has more lines than its shard has documents"
    except DataError as error:
        yield str(error)
