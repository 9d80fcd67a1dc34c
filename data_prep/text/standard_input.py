"""Text from standard input: kept in a file while the job runs, so that it is cut and resumed as files are."""

import os
import select
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from data_prep.atomic import replacing
from data_prep.errors import DataError
from data_prep.progress import progress

MARK = "-"
CHUNK_BYTES = 2**22
POLL_SECONDS = 0.2


def spool_path(out: Path, input_format: str) -> Path:
    """Where standard input is kept: it is JSON lines unless the format says otherwise."""
    return out / f"stdin.{'txt' if input_format == 'txt' else 'jsonl'}"


def spool(path: Path, check_stop: Callable[[], None]) -> None:
    """Copy standard input to `path`, or see that it is what an earlier start has copied; nothing is that, too.

    Args:
        check_stop: raises if the process was asked to stop: an end of the input is not believed then, because what
            feeds it may have been stopped by the same signal.

    Raises:
        DataError: there is no standard input, or it differs from what is there.
    """
    if path.exists():
        _compare(path, check_stop)
        return
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        progress("read standard input", total=None) as shown,
    ):
        for chunk in _chunks(check_stop):
            file.write(chunk)
            shown.update(len(chunk))


def _compare(path: Path, check_stop: Callable[[], None]) -> None:
    length = 0
    with path.open("rb") as file:
        for chunk in _chunks(check_stop):
            length += len(chunk)
            if file.read(len(chunk)) != chunk:
                length = -1
                break
    if length not in (0, path.stat().st_size):
        raise DataError(
            f"standard input differs from what the job began with, {path}. Give the same input, or nothing "
            "(</dev/null), to go on; for other input give another --out."
        )


def _chunks(check_stop: Callable[[], None]) -> Iterator[bytes]:
    if sys.stdin is None:
        raise DataError("--input - cannot be read because standard input is closed. Pipe the text in.")
    descriptor = sys.stdin.fileno()
    while True:
        check_stop()
        if not select.select([descriptor], [], [], POLL_SECONDS)[0]:
            continue
        chunk = os.read(descriptor, CHUNK_BYTES)
        check_stop()
        if not chunk:
            return
        yield chunk
