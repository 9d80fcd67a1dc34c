"""The manifest of a checkpoint: what is written is read, and nothing torn passes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.checkpoint.manifest import (
    CheckpointManifest,
    DataRecord,
    FileRecord,
    dump_manifest,
    find_checkpoints,
    load_manifest,
    step_folder,
)
from pipeline.errors import CheckpointError

MANIFEST = CheckpointManifest(
    step=7,
    consumed_samples=56,
    config={"run": {"seed": 1}},
    parameters={"embedding.weight": [8, 4]},
    data=DataRecord(order="ab", sources={"data": "cd"}),
    versions={"torch": "2"},
    files=[FileRecord(name="model.pt", bytes=5, checksum="cd")],
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.pt").write_bytes(b"12345")
    (tmp_path / "manifest.json").write_text(dump_manifest(MANIFEST))
    return tmp_path


def test_what_is_written_is_read(folder: Path) -> None:
    assert load_manifest(folder) == MANIFEST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("step"), "manifest.json is damaged: step: Field required"),
        (lambda content: content.update(step="7"), "manifest.json is damaged: step: Input should be a valid integer"),
        (lambda content: content.update(more=1), "manifest.json is damaged: more: Extra inputs are not permitted"),
        (lambda content: content["files"][0].update(bytes=6), r"model.pt has 5 bytes, the manifest says 6 bytes"),
        (lambda content: content["files"][0].update(name="x.pt"), r"x.pt is missing, the manifest says 5 bytes"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        load_manifest(folder)


def test_no_manifest_is_no_checkpoint(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged: the file: Invalid JSON"):
        load_manifest(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: manifest.json cannot be read \(No such file"):
        load_manifest(folder)


def test_checkpoints_are_found_newest_first(tmp_path: Path) -> None:
    assert find_checkpoints(tmp_path) == []
    names = [step_folder(step) for step in (9, 10, 9_999_999, 10_000_000)]
    for name in (*names, "step_0000011.tmp", "latest", "step_12"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [path.name for path in find_checkpoints(tmp_path)] == names[::-1]
