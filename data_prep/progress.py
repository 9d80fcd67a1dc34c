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

    def note(self, text: str) -> None:
        """Show `text` beside what is done from now on."""


@contextmanager
def progress(what: str, *, total: int | None, unit: str = "B", done: int = 0) -> Iterator[Progress]:
    """Shows on stderr how much of `total` units is done, for as long as the block runs.

    Args:
        total: None if nobody knows.
        done: units that an earlier start did; they do not count for the rate.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=what, total=total, initial=done, unit=unit, unit_scale=True, mininterval=0.2) as bar:
            bar.note = bar.set_postfix_str
            yield bar
        return
    lines = _PlainLines(what, total, unit, done)
    yield lines
    lines.show()


class _PlainLines:
    def __init__(self, what: str, total: int | None, unit: str, done: int) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = self._initial = done
        self._note = ""
        self._start = self._shown = time.monotonic()

    def update(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._shown >= SECONDS_BETWEEN_LINES:
            self.show()

    def note(self, text: str) -> None:
        self._note = f", {text}"

    def show(self) -> None:
        self._shown = time.monotonic()
        seconds = self._shown - self._start
        rate = (self._done - self._initial) / max(seconds, 1e-9)
        of_total = left = ""
        if self._total is not None:
            of_total = f" of {scaled(self._total)}{self._unit}"
            left = f", {max(self._total - self._done, 0) / rate:.0f} s left" if rate else ""
        print(
            f"{self._what}: {scaled(self._done)}{self._unit}{of_total}, "
            f"{scaled(rate)}{self._unit}/s, {seconds:.0f} s{left}{self._note}",
            file=sys.stderr,
            flush=True,
        )


def scaled(count: float) -> str:
    """Three digits and the prefix of a unit, such as `1.23 M`."""
    for prefix in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.3g} {prefix}"
        count /= 1000
    return f"{count:.3g} T"
