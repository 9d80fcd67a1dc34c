"""The life of a rank that the launcher has started, and what it tells the launcher."""

import ctypes
import io
import os
import pkgutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline import log
from pipeline.errors import Interrupted, UserError

PR_SET_PDEATHSIG = 1
PARENT = "PRETRAIN_PARENT"  # process id of the one that makes the next process


@dataclass(frozen=True)
class Failure:
    """What ended a rank: for people where the input was wrong, else with its traceback. `time` orders failures."""

    time: float
    message: str
    traceback: str | None = None
    interrupted: bool = False


def end_with_parent() -> None:
    """Have the kernel end this process with the one that made it: the launcher, or that from which ranks are forked."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ[PARENT]):  # it ended before the kernel was asked
        os._exit(1)
    os.environ[PARENT] = str(os.getpid())  # of those that are forked from here


def rank_main(
    function: str,
    args: tuple[Any, ...],
    environment: dict[str, str],
    connection: Connection,
    log_file: Path,
) -> None:
    """The life of a started rank."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher hears Ctrl-C and asks by SIGTERM
    os.environ.update(environment)
    _redirect_output(log_file)
    if environment["RANK"] == "0":
        log.show_at(_ToLauncher(connection))  # type: ignore[arg-type]
    try:
        message = ("done", pkgutil.resolve_name(function)(*args))
    except BaseException as error:  # noqa: BLE001 (told to the launcher, whatever it is)
        with suppress(OSError):  # the disk of the log may be what failed
            traceback.print_exc()
        message = ("failed", _describe(error, environment["RANK"]))
    connection.send(message)
    connection.close()
    sys.stderr.flush()
    os._exit(0)  # process groups of ranks that are gone can hang an orderly end


def _describe(error: BaseException, rank: str) -> Failure:
    if isinstance(error, Interrupted):
        return Failure(time.time(), str(error), interrupted=True)
    if isinstance(error, UserError):
        return Failure(time.time(), str(error))
    return Failure(time.time(), f"rank {rank} failed", traceback=traceback.format_exc())


def _redirect_output(log_file: Path) -> None:
    """Send all that this process and its libraries print to the file, whose end is what the log of a crash shows."""
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


class _ToLauncher(io.TextIOBase):
    """A stream whose text comes out at the launcher."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, text: str) -> int:
        self._connection.send(("print", text))
        return len(text)
