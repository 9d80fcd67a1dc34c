"""Files and folders that are there whole or not at all, also after a crash or a full disk."""

import errno
import glob
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_prep.errors import DataError
from data_prep.processes import is_running

TEMPORARY = ".tmp"
COMPARE_BYTES = 2**20
ABANDONED_SECONDS = 3600.0


def sync_folder(folder: Path) -> None:
    """Make the renames done in `folder` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the bytes of `path` outlive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def temporary_beside(path: Path) -> Path:
    """A name beside `path` for writing it, which no other process on any machine uses."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}{TEMPORARY}")


def remove_abandoned(folder: Path, name: str = "*") -> None:
    """Remove temporary files and folders in `folder` whose processes have ended, as after a kill.

    Of processes on other machines nothing is known but that a file has not been written to for ABANDONED_SECONDS.

    Args:
        name: of what they were to become; any if not given.
    """
    for path in folder.glob(f".{name}.*{TEMPORARY}"):
        with suppress(OSError):  # its process has just given it its name
            if _is_abandoned(path) and path.is_dir():
                shutil.rmtree(path)
            elif _is_abandoned(path):
                path.unlink()


def _is_abandoned(path: Path) -> bool:
    name, _, pid = path.name.removesuffix(TEMPORARY).rpartition(".")
    if not pid.isdecimal():
        return False
    if not name.endswith(f".{socket.gethostname()}"):
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    return not is_running(int(pid))


def link(temporary: Path, path: Path) -> bool:
    """Give a finished file its name unless it is taken; `temporary` stays, or becomes `path`.

    Returns:
        Whether the name was free.
    """
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):  # a file system without hard links
            raise
        if path.exists():
            return False
        temporary.replace(path)
        return True


def link_if_absent(temporary: Path, path: Path) -> None:
    """Give a finished file its name; a file of that name with the same bytes is kept: another process was first.

    Other bytes are replaced. Files get their names only when they are whole, and the caller makes only files that no
    record names yet, so such bytes come from a power cut or another program.
    """
    if not link(temporary, path) and not same_bytes(temporary, path):
        temporary.replace(path)


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while chunk := left.read(COMPARE_BYTES):
            if chunk != right.read(COMPARE_BYTES):
                return False
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well, and is removed when it fails.

    Raises:
        DataError: the disk is full or the folder cannot be written to.
    """
    path = path.absolute()
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}. Free or choose another disk.") from error
    finally:
        with suppress(OSError):  # it is gone, or was never made
            temporary.unlink()


@contextmanager
def creating_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` when the block ends well, and is removed when it fails.

    Raises:
        DataError: `path` exists already, and is not an empty folder, or is the current one; the disk is full or
            cannot be written to.
    """
    refuse_occupied(path)
    remove_abandoned(path.parent, glob.escape(path.name))
    temporary = temporary_beside(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for inside in [*temporary.rglob("*"), temporary]:
            (sync_folder if inside.is_dir() else sync_file)(inside)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}. Free or choose another disk.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_occupied(path: Path) -> None:
    """Raise DataError unless `path` is absent or an empty folder, and not the current one."""
    if path.resolve() == Path.cwd():  # replacing it would leave the shell, and relative paths, in a folder that is gone
        raise DataError(f"{path} is the current folder, which cannot be replaced. Give --out a new folder in it.")
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise DataError(f"{path} exists already and would be overwritten. Remove it, or give another --out.")
