"""Files and folders that are there whole or not at all, also after a crash or a full disk."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_prep.errors import DataError

TEMPORARY = ".tmp"


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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well, and is removed when it fails.

    Raises:
        DataError: the disk is full or the folder cannot be written to.
    """
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            sync_file(file)
        sync_folder(temporary)
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
