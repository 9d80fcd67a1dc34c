"""Being asked to stop: SIGTERM, SIGUSR1 (a cluster's warning) and Ctrl-C, answered at the next good moment."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from data_prep.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
POLL_SECONDS = 0.1


class Stop:
    """Whether this process was asked to stop.

    Attributes:
        parent: number of a process without which this one has nothing to do; None if there is none.
    """

    def __init__(self, parent: int | None = None) -> None:
        self.parent = parent
        self._is_asked = False

    def ask(self, *_: object) -> None:
        """Make the next `check` end the work; also a signal handler."""
        self._is_asked = True

    @property
    def is_asked(self) -> bool:
        return self._is_asked or (self.parent is not None and os.getppid() != self.parent)

    def check(self) -> None:
        """Raise Interrupted if the process was asked to stop."""
        if self.is_asked:
            raise Interrupted("stopped")

    def sleep(self, seconds: float) -> None:
        """Wait, unless asked to stop."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, POLL_SECONDS))


@contextmanager
def stopping_on_signals(parent: int | None = None) -> Iterator[Stop]:
    """A `Stop` that signals set for as long as the block runs; in a thread, which gets no signals, nothing sets it.

    The second signal has the effect that it had before the block.
    """
    stop = Stop(parent)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, _: FrameType | None) -> None:
        stop.ask()
        signal.signal(number, before[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
