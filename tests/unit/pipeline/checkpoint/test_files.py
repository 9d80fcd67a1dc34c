"""A checkpoint's files: summed, read as data alone, and honest about a disk that fails."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash

from pipeline.checkpoint import files
from pipeline.errors import CheckpointError


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


def test_what_is_written_is_recorded_and_read_back(tmp_path: Path) -> None:
    durable = files.DurableFiles()
    content = {"weight": torch.arange(5.0), "step": 3, "names": ["a", ("b", None)]}
    durable.save(content, str(tmp_path / "a.pt"))
    [record] = durable.written
    data = (tmp_path / "a.pt").read_bytes()
    assert (record.name, record.bytes) == ("a.pt", len(data))
    assert record.checksum == xxhash.xxh3_128_hexdigest(data)
    found = durable.load(str(tmp_path / "a.pt"))
    assert torch.equal(found.pop("weight"), torch.arange(5.0))
    assert found == {"step": 3, "names": ["a", ("b", None)]}
    durable.start()
    assert durable.written == []


def test_a_file_that_runs_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(CheckpointError, match=r"trap\.pt cannot be read as tensors and plain values"):
        files.load(tmp_path / "trap.pt")
    assert "this must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.pt"
    if content is None:
        torch.save({"weight": torch.zeros(1000)}, path)
        content = path.read_bytes()[:-50]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be read"):
        files.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.pt is missing from the checkpoint"):
        files.load(tmp_path / "a.pt")


def test_a_full_disk_is_remembered_until_all_ranks_have_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    durable = files.DurableFiles()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", full)
        durable.save({"step": 1}, str(tmp_path / "a.pt"))
    durable.save({"step": 1}, str(tmp_path / "b.pt"))
    assert durable.failures == ["a.pt: No space left on device"]
    assert [record.name for record in durable.written] == ["b.pt"]


def test_what_cannot_be_pickled_is_our_fault_and_raised(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        files.DurableFiles().save({"step": (value for value in ())}, str(tmp_path / "a.pt"))
