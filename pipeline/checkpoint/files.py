"""How a checkpoint's files are written and read: made durable and summed as they are written, read as data alone."""

import os
from pathlib import Path
from typing import Any

import torch
import xxhash
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from pipeline import log
from pipeline.checkpoint.manifest import CheckpointManifest, FileRecord, find_checkpoints, load_manifest
from pipeline.errors import CheckpointError

# All that DeepSpeed puts into its files beside tensors and plain containers.
ALLOWED_CLASSES = [fragment_address, LossScaler, DynamicLossScaler, ZeroStageEnum]
READ_BYTES = 1 << 22


class DurableFiles(CheckpointEngine):
    """DeepSpeed's way to the disk: each file is fsynced and summed when written, and read without running code.

    `written` holds the records of the files of this rank since `start`, `failures` why others could not be written:
    that is not raised at once, because DeepSpeed has the ranks meet while they save.
    """

    def __init__(self) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.start()

    def start(self) -> None:
        self.written: list[FileRecord] = []
        self.failures: list[str] = []

    def create(self, info: CheckpointCommitInfo) -> None:
        """DeepSpeed announces a checkpoint; `pipeline.checkpoint.save` has made its folder already."""

    def commit(self, info: CheckpointCommitInfo) -> bool:  # noqa: ARG002
        """DeepSpeed asks whether all is written; `pipeline.checkpoint.save` commits."""
        return True

    def save(self, state_dict: Any, path: str) -> None:
        try:
            with open(path, "wb") as file:
                torch.save(state_dict, file)
                file.flush()
                os.fsync(file.fileno())
            self.written.append(
                FileRecord(name=Path(path).name, bytes=os.path.getsize(path), checksum=checksum(Path(path)))
            )
        except (OSError, RuntimeError) as error:
            # torch's writer covers what the disk said with an error of its own.
            said = error if isinstance(error, OSError) else error.__context__
            if not isinstance(said, OSError):
                raise
            self.failures.append(f"{Path(path).name}: {said.strerror}")

    def load(self, path: str, map_location: Any = None) -> Any:
        return load(Path(path), map_location=map_location)


def load(path: Path, *, map_location: Any = "cpu", mmap: bool = False) -> Any:
    """The content of a checkpoint file: tensors and plain values only, never code.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something that is not data.
    """
    try:
        with torch.serialization.safe_globals(ALLOWED_CLASSES):
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing from the checkpoint. Resume from another one.") from error
    except Exception as error:  # torch raises whatever its unpickler and its zip reader come upon
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} cannot be read as tensors and plain values: {reason}") from error


def newest(run_dir: Path) -> tuple[Path, CheckpointManifest] | None:
    """The newest checkpoint whose files are all there and unchanged; a damaged one is named, left, and passed over.

    Returns:
        None where there are no checkpoints.

    Raises:
        CheckpointError: there are, and all are damaged.
    """
    folders = find_checkpoints(run_dir)
    for folder in folders:
        try:
            return folder, load_verified(folder)
        except CheckpointError as error:
            log.get().warning("passing over checkpoint %s: %s", folder.name, error)
    if folders:
        raise CheckpointError(
            f"all {len(folders)} checkpoints of {run_dir} are damaged, {folders[0].name} the newest of them. Restore "
            "one from a copy, or start anew in another run.dir."
        )
    return None


def load_verified(folder: Path) -> CheckpointManifest:
    """The manifest of the checkpoint in `folder`, whose files are all there and unchanged.

    Raises:
        CheckpointError: it is not a complete checkpoint, or a file's bytes are not those that were written.
    """
    manifest = load_manifest(folder)
    for record in manifest.files:
        path = folder / record.name
        try:
            found = checksum(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
        if found != record.checksum:
            raise CheckpointError(f"{path} has changed since it was saved: its checksum differs.")
    return manifest


def checksum(path: Path) -> str:
    """xxh3-128 of the file, in hex."""
    hasher = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()
