"""Several data sets to one, without copying: hard links to their shards, under new names."""

import dataclasses
import errno
import os
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from data_prep.atomic import creating_folder, refuse_occupied
from data_prep.data_sets.data_set import DataSet
from data_prep.data_sets.shard_series import MAX_SHARDS
from data_prep.errors import DataError
from data_prep.format import bin_path, idx_path, metadata_path
from data_prep.manifest import Manifest, Shard, TokenizerRecord, make_manifest, save_manifest
from data_prep.progress import progress


def merge(folders: Sequence[Path], out: Path) -> Manifest:
    """Makes the data set `out` of all documents of `folders`, in their order.

    Its files are hard links (copies on another file system): they take no room, and stay when `folders` are removed.

    Raises:
        DataError: the data sets were not made alike, one is given twice or damaged, or `out` is occupied.
    """
    refuse_occupied(out)
    data_sets = open_mergeable(folders)
    shards = [(data_set, shard) for data_set in data_sets for shard in data_set.manifest.shards]
    if len(shards) > MAX_SHARDS:
        raise DataError(f"{len(shards)} shards are more than {MAX_SHARDS}. Use --shuffle, which makes larger ones.")
    with creating_folder(out) as folder, progress("merge", total=len(shards), unit=" shards") as shown:
        renamed = []
        for number, (data_set, shard) in zip(count(), shards):
            renamed.append(_link(data_set.folder, shard, folder, f"shard_{number:05d}"))
            shown.update(1)
        manifest = merged_manifest(data_sets, renamed, out)
        save_manifest(manifest, folder)
    return manifest


def open_mergeable(folders: Sequence[Path]) -> list[DataSet]:
    """The data sets in `folders`, after a check that they can be one.

    Raises:
        DataError: they were not made alike, or one is given twice.
    """
    data_sets = [DataSet(folder) for folder in folders]
    first = data_sets[0]
    for other in data_sets[1:]:
        differences = [
            f"{name}: {ours} and {theirs}"
            for name, ours, theirs in zip(
                ("tokenizer.sha256", "vocab_size", "dtype", "eod_id", "sequences"),
                _made(first),
                _made(other),
                strict=True,
            )
            if ours != theirs
        ]
        if differences:
            raise DataError(
                f"{first.folder} and {other.folder} were not made alike ({'; '.join(differences)}): what they hold "
                "means different things. Tokenize one of them again with the other's tokenizer and settings."
            )
    owners: dict[tuple[str, str], int] = {}
    for number, data_set in enumerate(data_sets):
        for shard in data_set.manifest.shards:
            if not shard.num_tokens:
                continue
            owner = owners.setdefault((shard.bin_checksum, shard.idx_checksum), number)
            if owner != number:
                raise DataError(
                    f"{folders[owner]} and {data_set.folder} hold the same documents ({shard.name} is equal in "
                    "both): they would be in the result twice. Leave one of the two out."
                )
    return data_sets


def merged_manifest(data_sets: Sequence[DataSet], shards: Sequence[Shard], out: Path) -> Manifest:
    """The manifest of `shards`, which hold all documents of `data_sets`, for the folder `out`."""
    manifests = [data_set.manifest for data_set in data_sets]
    first = manifests[0]
    return make_manifest(
        vocab_size=first.vocab_size,
        dtype=first.dtype,
        eod_id=first.eod_id,
        tokenizer=moved_tokenizer(data_sets[0], out),
        sources=[source for manifest in manifests for source in manifest.sources],
        shards=shards,
        preparations=[preparation for manifest in manifests for preparation in manifest.preparations],
        metadata_keys=list(dict.fromkeys(key for manifest in manifests for key in manifest.metadata_keys)),
    )


def moved_tokenizer(data_set: DataSet, out: Path) -> TokenizerRecord:
    """The tokenizer of `data_set`, as the manifest in `out` names it: a relative path counts from there."""
    record = data_set.manifest.tokenizer
    if Path(record.path).is_absolute():
        return record
    path = os.path.relpath(data_set.folder.absolute() / record.path, out.absolute())
    return dataclasses.replace(record, path=path)


def _made(data_set: DataSet) -> tuple[object, ...]:
    manifest = data_set.manifest
    sequences = "sentences" if manifest.sequences_are_sentences else "documents"
    return manifest.tokenizer.sha256, manifest.vocab_size, manifest.dtype, manifest.eod_id, sequences


def _link(source: Path, shard: Shard, folder: Path, name: str) -> Shard:
    paths = [bin_path, idx_path, *([metadata_path] if shard.metadata_checksum is not None else [])]
    for path in paths:
        try:
            os.link(path(source, shard.name), path(folder, name))
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            shutil.copyfile(path(source, shard.name), path(folder, name))
    return dataclasses.replace(shard, name=name)
