"""How far a long job is: a bar with rate and time left on a terminal, a plain line now and then otherwise."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

SECONDS_BETWEEN_LINES = 5.0


class Progress(Protocol):
    def update(self, count: int) -> object:
        """Say that `count` more units are done."""


@contextmanager
def progress(what: str, *, total: int, unit: str = "B") -> Iterator[Progress]:
    """Shows on stderr how much of `total` units is done, for as long as the block runs."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=what, total=total, unit=unit, unit_scale=True, mininterval=0.2) as bar:
            yield bar
        return
    lines = _PlainLines(what, total, unit)
    yield lines
    lines.show()


class _PlainLines:
    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._start = self._shown = time.monotonic()

    def update(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._shown >= SECONDS_BETWEEN_LINES:
            self.show()

    def show(self) -> None:
        self._shown = time.monotonic()
        seconds = self._shown - self._start
        rate = self._done / max(seconds, 1e-9)
        left = max(self._total - self._done, 0) / max(rate, 1e-9)
        print(
            f"{self._what}: {_scaled(self._done)}{self._unit} of {_scaled(self._total)}{self._unit}, "
            f"{_scaled(rate)}{self._unit}/s, {seconds:.0f} s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )


def _scaled(count: float) -> str:
    for prefix in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.3g} {prefix}"
        count /= 1000
    return f"{count:.3g} T"
