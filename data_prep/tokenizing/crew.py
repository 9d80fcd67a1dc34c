"""The worker processes of one start: started, watched, asked to stop, and ended when they hang."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import data_prep
from data_prep.errors import DataError
from data_prep.tokenizing.options import EXIT_INTERRUPTED, EXIT_WRONG_INPUT, Options
from data_prep.tokenizing.stopping import Stop

POLL_SECONDS = 0.1
GRACE_SECONDS = 30.0  # to reach the end of a batch after a request to stop, or to end when nothing is left to do


@dataclass
class _Member:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def message(self) -> str:
        """What it said before it ended."""
        self.errors.seek(0)
        return self.errors.read().decode("utf-8", "replace").strip()


class Crew:
    """Worker processes on this machine for the job in `out`.

    As a context manager it ends those that are left.

    Args:
        task: see `tokenize.tokenize`.
    """

    def __init__(self, out: Path, options: Options, *, size: int, task: str) -> None:
        self._members: list[_Member] = []
        command = [sys.executable, "-m", "data_prep.tokenizing.worker", "--task", task]
        command += ["--on-bad-record", options.on_bad_record, "--recheck", str(options.recheck)]
        command += ["--parent", str(os.getpid()), "--", str(out)]
        package = str(Path(data_prep.__path__[0]).parent)
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        for _ in range(size):
            errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=errors, env=os.environ | {"PYTHONPATH": path}
            )
            self._members.append(_Member(process, errors))

    def wait(self, stop: Stop, is_all_done: Callable[[], bool]) -> None:
        """Return when all have ended well, or nothing is left to do.

        One that was killed is no error as long as another one goes on with its units.

        Raises:
            DataError: the input or the disk is at fault.
            Interrupted: this process was asked to stop.
            RuntimeError: a worker failed by a mistake of this program.
        """
        done_at: float | None = None
        while any(member.process.poll() is None for member in self._members):
            self._raise_failure()
            stop.check()
            if is_all_done():
                done_at = done_at or time.monotonic()
                if time.monotonic() - done_at > GRACE_SECONDS:  # it hangs, and another one did its unit
                    return
            time.sleep(POLL_SECONDS)
        self._raise_failure()
        stop.check()
        codes = [member.process.returncode for member in self._members]
        if all(codes) and not is_all_done():
            raise DataError(
                f"all {len(codes)} worker processes were ended from outside (exit codes {codes}; -9 is often a lack of "
                "memory). What is done is kept: give the same command again, with fewer --workers."
            )

    def _raise_failure(self) -> None:
        for member in self._members:
            code = member.process.poll()
            if code == EXIT_WRONG_INPUT:
                raise DataError(member.message())
            if code is not None and code > 0 and code != EXIT_INTERRUPTED:
                raise RuntimeError(f"a worker process failed:\n{member.message()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + GRACE_SECONDS
        for member in self._members:
            try:
                member.process.wait(max(end - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
            member.errors.close()
