"""Whole files and folders, and what killed processes leave."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.atomic import creating_folder, link, link_if_absent, remove_abandoned, temporary_beside
from data_prep.processes import is_running


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    host, dead = socket.gethostname(), dead_process()
    gone = [f".a.{host}.{dead}.tmp", f".b.{host}.{dead}.tmp"]
    kept = [
        f".a.{host}.{os.getpid()}.tmp",
        f".a.elsewhere.{dead}.tmp",
        ".a.tmp",
        ".editor.swp.tmp",
        f"a.{host}.{dead}.tmp",
    ]
    for name in (*gone, *kept):
        (tmp_path / name).touch()
    remove_abandoned(tmp_path, "a")
    assert not (tmp_path / gone[0]).exists()
    assert (tmp_path / gone[1]).exists()
    remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_folder_that_a_killed_command_left_goes_with_the_next_one(tmp_path: Path) -> None:
    left = tmp_path / f".out.{socket.gethostname()}.{dead_process()}.tmp"
    left.mkdir()
    (left / "large").touch()
    with creating_folder(tmp_path / "out") as folder:
        (folder / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("content", [b"same", b"other"])
def test_a_taken_name(tmp_path: Path, content: bytes) -> None:
    path, temporary = tmp_path / "file", temporary_beside(tmp_path / "file")
    path.write_bytes(b"same")
    temporary.write_bytes(content)
    before = path.stat().st_ino
    assert not link(temporary, path)
    assert path.read_bytes() == b"same"
    link_if_absent(temporary, path)
    assert path.read_bytes() == content
    assert (path.stat().st_ino == before) == (content == b"same")


def test_a_process_that_its_parent_has_not_reaped_has_ended(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.read()  # it ends, and is a zombie until somebody waits for it
    while is_running(child.pid):
        pass
    (tmp_path / f".a.{socket.gethostname()}.{child.pid}.tmp").touch()
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []
    child.wait()
