"""The commit record of a unit: a file beside its shard, written last, that says what the unit became."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import xxhash

from data_prep.accounting import Counters, Offender
from data_prep.atomic import link_if_absent, sync_file, sync_folder, temporary_beside
from data_prep.checksum import file_checksum
from data_prep.errors import DataError
from data_prep.format import bin_path, idx_bytes, idx_path, metadata_path
from data_prep.manifest import Shard
from data_prep.records import read_record, to_json
from data_prep.tokenizing.quarantine import quarantine_path

MAX_OFFENDERS = 100
REMEDY = "Delete it and give the same command again: its unit is done anew."


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What a unit became.

    Attributes:
        config_hash: of the job.
        source: index of the pattern that named the unit's files.
        num_text_bytes: UTF-8 bytes of the documents.
        weight: bytes of the unit, as progress counts them.
        input_checksum: xxh3-128 of the records that were read.
        engine: name and version of the library that made the ids.
        num_rechecked: documents whose ids were compared with the reference tokenizer's.
        quarantine_checksum: of the file with the bad records; None if none was written.
        offenders: the first bad records.
        checksum: xxh3-128 of all other fields.
    """

    config_hash: str
    source: int
    shard: Shard
    counters: Counters
    num_text_bytes: int
    weight: int
    input_checksum: str
    engine: str
    num_rechecked: int
    quarantine_checksum: str | None
    offenders: tuple[Offender, ...]
    checksum: str = ""

    def expected_checksum(self) -> str:
        return str(xxhash.xxh3_128_hexdigest(orjson.dumps(replace(self, checksum=""))))


def commit_path(out: Path, name: str) -> Path:
    return out / f"{name}.json"


def write_commit(commit: Commit, out: Path) -> None:
    """Make the unit count as done. Its shard must be on the disk."""
    path = commit_path(out, commit.shard.name)
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(to_json(replace(commit, checksum=commit.expected_checksum())))
        sync_file(temporary)
        link_if_absent(temporary, path)
        sync_folder(out)
    finally:
        temporary.unlink(missing_ok=True)


def read_commit(out: Path, name: str, *, config_hash: str) -> Commit | None:
    """The commit record of a unit, or None if there is none, or its shard is not there in the size that it states.

    Raises:
        DataError: the record is damaged, or of another job.
    """
    path = commit_path(out, name)
    try:
        commit = read_record(path, Commit, remedy=REMEDY)
    except FileNotFoundError:
        return None
    if commit.checksum != commit.expected_checksum() or commit.shard.name != name:
        raise DataError(f"{path} is damaged: its checksum does not follow from its fields. {REMEDY}")
    if commit.config_hash != config_hash:
        raise DataError(f"{path} is of another job. Move the shard away with it, or give another --out.")
    expected = {
        bin_path(out, name): commit.shard.bin_bytes,
        idx_path(out, name): idx_bytes(commit.shard.num_sequences, commit.shard.num_documents),
    }
    beside = [metadata_path(out, name)] * (commit.shard.metadata_checksum is not None)
    beside += [quarantine_path(out, name)] * (commit.quarantine_checksum is not None)
    is_whole = all(_size(path) == size for path, size in expected.items()) and all(map(Path.is_file, beside))
    return commit if is_whole else None


def commit_problems(out: Path, shards: Sequence[Shard]) -> Iterator[str]:
    """What is wrong with the commit records of a finished data set; there are none where other commands made it."""
    names = set(committed_names(out))
    for shard in shards if names else ():
        path = commit_path(out, shard.name)
        if shard.name not in names:
            yield f"{path.name} is missing"
            continue
        try:
            commit = read_record(path, Commit, remedy=REMEDY)
        except DataError as error:
            yield str(error)
            continue
        if path.read_bytes() != to_json(commit) or commit.checksum != commit.expected_checksum():
            yield f"{path.name}: its bytes changed (checksum)"
        elif commit.shard != shard:
            yield f"{path.name} describes another shard than manifest.json"
        elif (
            commit.quarantine_checksum and _checksum_of(quarantine_path(out, shard.name)) != commit.quarantine_checksum
        ):
            yield f"{quarantine_path(out, shard.name)} is missing, or its bytes changed (checksum)"


def _checksum_of(path: Path) -> str | None:
    return file_checksum(path) if path.is_file() else None


def committed_names(out: Path) -> Iterator[str]:
    """The names of the shards that have a commit record, in no order; the records are not read."""
    with os.scandir(out) as entries:
        for entry in entries:
            if entry.name.startswith("shard_") and entry.name.endswith(".json") and entry.is_file():
                yield entry.name.removesuffix(".json")


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None
