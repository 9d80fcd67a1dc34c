"""Saving a checkpoint: all ranks write into a temporary folder, which one rename makes a checkpoint."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from data_prep.atomic import replacing, sync_folder
from pipeline.checkpoint import rng
from pipeline.checkpoint.manifest import (
    FILE_NAME,
    CheckpointManifest,
    dump_manifest,
    find_checkpoints,
    is_complete,
    step_folder,
    step_of,
)
from pipeline.engine.engine import Engine
from pipeline.errors import CheckpointError, DataError

Item = TypeVar("Item")


def save(engine: Engine, run_dir: Path, manifest: CheckpointManifest, *, keep_last: int | None) -> Path:
    """The folder of a new checkpoint of this moment; every rank calls this. An older one of the same step is replaced.

    Args:
        manifest: all but `files`, which is filled in.
        keep_last: number of newest checkpoints to keep; None keeps all.

    Raises:
        CheckpointError: the disk is full or cannot be written to. Nothing is left of this checkpoint, and those before
            are as they were.
    """
    folder = run_dir / "checkpoints" / step_folder(manifest.step)
    temporary = folder.with_name(folder.name + ".tmp")
    rank = torch.distributed.get_rank()
    if rank == 0:
        for left_by_a_kill in folder.parent.glob("*.tmp"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        with _all_or_nothing(temporary, folder):
            temporary.mkdir(parents=True)
    torch.distributed.barrier()
    _write(engine, temporary, rank)
    failures, records = _gather(engine.files.failures), _gather(engine.files.written)
    if rank == 0:
        with _all_or_nothing(temporary, folder):
            if failures:
                raise OSError(failures[0])
            records.sort(key=lambda record: record.name)
            _commit(temporary, folder, manifest.model_copy(update={"files": records}))
        _retain(run_dir, manifest.step, keep_last)
    torch.distributed.barrier()
    return folder


@contextmanager
def _all_or_nothing(temporary: Path, folder: Path) -> Iterator[None]:
    """Remove `temporary` if the disk fails in the block, and say that `folder` could not be saved."""
    try:
        yield
    except (OSError, DataError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"{folder} cannot be saved: {str(error).rstrip('.')}. The checkpoints before it are as they were: free the "
            "disk, or set checkpoint.keep_last, and run the same command again."
        ) from error


def _write(engine: Engine, folder: Path, rank: int) -> None:
    """Write this rank's files into `folder`; the engine's `files` say which, and what went wrong."""
    files = engine.files
    files.start()
    engine.deepspeed.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False)
    files.save(rng.state(), str(folder / rng.file_name(rank)))


def _gather(mine: list[Item]) -> list[Item]:
    """The items of all ranks, in rank order."""
    everyone: list[list[Item] | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return [item for items in everyone for item in items or []]


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


def _retain(run_dir: Path, step: int, keep_last: int | None) -> None:
    """Remove what is older than the newest `keep_last` complete checkpoints up to `step`; damaged ones are left."""
    complete = [folder for folder in find_checkpoints(run_dir) if step_of(folder) <= step and is_complete(folder)]
    for folder in complete[keep_last:] if keep_last else []:
        shutil.rmtree(folder, ignore_errors=True)
