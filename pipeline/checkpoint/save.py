"""Saving a checkpoint: all ranks write into a temporary folder, which one rename makes a checkpoint."""

import os
import shutil
from pathlib import Path

import torch

from data_prep.atomic import replacing, sync_folder
from pipeline.checkpoint import rng
from pipeline.checkpoint.manifest import (
    FILE_NAME,
    CheckpointManifest,
    FileRecord,
    dump_manifest,
    find_checkpoints,
    step_folder,
)
from pipeline.engine import Engine


def save(engine: Engine, run_dir: Path, manifest: CheckpointManifest, *, keep_last: int | None) -> Path:
    """The folder of a new checkpoint of this moment; every rank calls this. An older one of the same step is replaced.

    Args:
        manifest: all but `files`, which is filled in.
        keep_last: number of newest checkpoints to keep; None keeps all.
    """
    folder = run_dir / "checkpoints" / step_folder(manifest.step)
    temporary = folder.with_name(folder.name + ".tmp")
    rank = torch.distributed.get_rank()
    if rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    torch.distributed.barrier()
    records = _gather(_write(engine, temporary, rank))
    if rank == 0:
        _commit(temporary, folder, manifest.model_copy(update={"files": records}))
        _retain(run_dir, keep_last)
    torch.distributed.barrier()
    return folder


def _write(engine: Engine, folder: Path, rank: int) -> list[FileRecord]:
    """Write this rank's files into `folder`."""
    files = engine.files
    files.start()
    engine.deepspeed.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False)
    files.save(rng.state(), str(folder / rng.file_name(rank)))
    return files.written


def _gather(mine: list[FileRecord]) -> list[FileRecord]:
    everyone: list[list[FileRecord] | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return sorted((record for records in everyone for record in records or []), key=lambda record: record.name)


def _commit(temporary: Path, folder: Path, manifest: CheckpointManifest) -> None:
    with replacing(temporary / FILE_NAME) as path:
        path.write_text(dump_manifest(manifest), encoding="utf-8")
    sync_folder(temporary)
    if folder.exists():
        # A run that resumed from an older checkpoint comes by this step again.
        stale = folder.with_name(folder.name + ".stale.tmp")
        folder.rename(stale)
        os.rename(temporary, folder)
        shutil.rmtree(stale, ignore_errors=True)
    else:
        os.rename(temporary, folder)
    with replacing(folder.parent / "latest") as path:
        path.write_text(folder.name + "\n", encoding="utf-8")


def _retain(run_dir: Path, keep_last: int | None) -> None:
    for folder in find_checkpoints(run_dir)[keep_last:] if keep_last else []:
        shutil.rmtree(folder, ignore_errors=True)
