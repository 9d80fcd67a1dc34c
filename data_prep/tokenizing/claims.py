"""Who works on what, over a shared file system, without a coordinator: a lock file for each item, with a heartbeat.

Claims only save double work. Nothing is lost or doubled when two processes do the same item, because the result is a
pure function of the input and appears by link-if-absent.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.processes import start_of

STALE_SECONDS = 60.0
BEAT_SECONDS = 2.0
SUFFIX = ".lock"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from later ones with its number.

    Attributes:
        machine: changes with each start of the machine or container.
        pid, started: in clock ticks since the machine started.
    """

    host: str
    machine: str
    pid: int
    started: int

    def is_gone(self) -> bool:
        """Whether the process has certainly ended; unknown for one on another machine."""
        return self.machine == _machine() and start_of(self.pid) != self.started


@dataclass(frozen=True, slots=True)
class Held:
    """What a lock file says about work that goes on.

    Attributes:
        item: name of what is worked on.
        silent_seconds: since the last heartbeat.
        note: what the worker said last.
    """

    item: str
    owner: Owner
    silent_seconds: float
    note: dict[str, Any]

    @property
    def is_stale(self) -> bool:
        return self.silent_seconds > STALE_SECONDS or self.owner.is_gone()


class Claim:
    """An item that this process works on. The work itself gives the heartbeat, so a worker that hangs falls silent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beaten = time.monotonic()

    def beat(self, note: dict[str, Any]) -> None:
        """Say that the work goes on, and how far it is. Cheap: it writes every BEAT_SECONDS only."""
        now = time.monotonic()
        if now - self._beaten >= BEAT_SECONDS:
            self._beaten = now
            self._path.write_bytes(_content(note))


@contextmanager
def claimed(folder: Path, item: str) -> Iterator[Claim | None]:
    """The claim on an item for as long as the block runs; None if another process holds it.

    A claim is taken over from a process that has ended or has been silent for STALE_SECONDS.
    """
    path = folder / f"{item}{SUFFIX}"
    if not _create(path):
        held = read_claim(path)
        if held is not None and not held.is_stale:
            yield None
            return
        with suppress(FileNotFoundError):
            path.unlink()
        if not _create(path):
            yield None
            return
    try:
        yield Claim(path)
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


def held_claims(folder: Path) -> list[Held]:
    """All claims in a folder, by item."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    except FileNotFoundError:
        return []
    return [held for held in map(read_claim, paths) if held is not None]


def read_claim(path: Path) -> Held | None:
    """What a lock file says; None if it is gone."""
    try:
        content = path.read_bytes()
        silent = _now(path.parent) - path.stat().st_mtime
    except OSError:
        return None
    try:
        fields = json.loads(content)
        owner = Owner(**fields["owner"])
        note = fields["note"]
    except (ValueError, KeyError, TypeError):  # read while it was written, or left empty by a full disk
        owner, note = Owner("unknown", "", 0, 0), {}
    return Held(path.name.removesuffix(SUFFIX), owner, silent, note)


def _create(path: Path) -> bool:
    path.parent.mkdir(exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, _content({}))
    except OSError:  # a full disk
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return True


def _content(note: dict[str, Any]) -> bytes:
    owner = {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "started": start_of(os.getpid())}
    return json.dumps({"owner": owner, "note": note}).encode()


def _now(folder: Path) -> float:
    """The time of the file system, whose clock may differ from this machine's."""
    path = folder / f".clock.{socket.gethostname()}.{os.getpid()}"
    try:
        path.touch()
        now = path.stat().st_mtime
        path.unlink()
    except OSError:  # a full or read-only file system
        now = time.time()
    return now


def _machine() -> str:
    """One start of one machine, and the process numbers that count in it."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} without /proc"
