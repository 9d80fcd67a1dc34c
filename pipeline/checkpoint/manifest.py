"""What a checkpoint holds: `manifest.json`, written last into a folder that is then renamed into place."""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import CheckpointError

FILE_NAME = "manifest.json"
FORMAT_VERSION = 1
STEP_FOLDER = re.compile(r"step_(\d{7,})")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileRecord(_Record):
    """One file of a checkpoint; the checksum is xxh3-128 in hex."""

    name: str
    bytes: int
    checksum: str


class DataRecord(_Record):
    """What the samples before a checkpoint were read from.

    Attributes:
        order: fingerprint of the blend up to there: equal if each sample would be the same one again.
        sources: the fingerprint of each training source, by its name.
    """

    order: str
    sources: dict[str, str]


class CheckpointManifest(_Record):
    """A checkpoint, described.

    Attributes:
        step: completed optimizer steps.
        consumed_samples: sequences used so far by all ranks together: the data position.
        config: the resolved run config.
        parameters: the parameter table: logical name to full shape.
        data: what the samples so far were read from.
        versions: of the packages that wrote the files.
    """

    format_version: int = FORMAT_VERSION
    step: int
    consumed_samples: int
    config: dict[str, Any]
    parameters: dict[str, list[int]]
    data: DataRecord
    versions: dict[str, str]
    files: list[FileRecord]


def step_folder(step: int) -> str:
    """The name of the folder of the checkpoint after `step` steps."""
    return f"step_{step:07d}"


def step_of(folder: Path) -> int:
    """The steps that were completed when the checkpoint in `folder` was saved."""
    return int(folder.name.removeprefix("step_"))


def is_complete(folder: Path) -> bool:
    """Whether all files of the checkpoint in `folder` are there in their sizes."""
    try:
        load_manifest(folder)
    except CheckpointError:
        return False
    return True


def load_manifest(folder: Path) -> CheckpointManifest:
    """The manifest of the checkpoint in `folder`, each file it names being there in the size it states.

    Raises:
        CheckpointError: it is not a complete checkpoint.
    """
    path = folder / FILE_NAME
    try:
        manifest = CheckpointManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{folder} is not a checkpoint: {FILE_NAME} cannot be read ({error.strerror})."
        ) from error
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"])) or "the file"
        raise CheckpointError(f"{path} is damaged: {place}: {problem['msg']}.") from error
    if manifest.format_version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version={manifest.format_version} is not readable; this version reads {FORMAT_VERSION}."
        )
    for record in manifest.files:
        file = folder / record.name
        found = file.stat().st_size if file.is_file() else None
        if found != record.bytes:
            state = "is missing" if found is None else f"has {found} bytes"
            raise CheckpointError(f"{file} {state}, the manifest says {record.bytes} bytes: the checkpoint is torn.")
    return manifest


def dump_manifest(manifest: CheckpointManifest) -> str:
    return json.dumps(manifest.model_dump(), indent=2) + "\n"


def find_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first, complete or not."""
    folder = run_dir / "checkpoints"
    found = [path for path in folder.iterdir() if STEP_FOLDER.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=step_of, reverse=True)
