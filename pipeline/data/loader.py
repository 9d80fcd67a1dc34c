"""Micro-batches for one data-parallel rank, read ahead by a thread."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.objectives.samples import Batch


class Batches(Protocol):
    """Anything that has inputs and labels for positions: `pipeline.data.samples`."""

    def batch(self, positions: npt.NDArray[np.int64]) -> Batch: ...


class MicroBatches:
    """The micro-batches of one data-parallel rank, of `micro_batch_size` samples each.

    Micro-batch m of rank r holds the positions after (m * size + r) * micro_batch_size of the run's order, so all ranks
    together use the same samples in a step, however many ranks there are. The position is all the state that there is.
    """

    def __init__(self, samples: Batches, *, micro_batch_size: int, rank: int, size: int) -> None:
        self.samples = samples
        self.micro_batch_size, self.rank, self.size = micro_batch_size, rank, size

    def after(self, consumed_samples: int, *, count: int | None = None) -> Iterator[Batch]:
        """From the sample after the first `consumed_samples` of all ranks together; `count` of them, or without end."""
        number = 0
        while count is None or number < count:
            first = consumed_samples + (number * self.size + self.rank) * self.micro_batch_size
            yield self.samples.batch(np.arange(first, first + self.micro_batch_size))
            number += 1


class Prefetcher(Iterator[Batch]):
    """The items of `source`, up to `depth` of them read ahead by a thread. An error in the thread is raised here.

    `wait_seconds` sums the time that the caller has waited for data.
    """

    def __init__(self, source: Iterator[Batch], depth: int) -> None:
        self.wait_seconds = 0.0
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(source,), name="prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> Batch:
        started = time.perf_counter()
        item = self._queue.get()
        self.wait_seconds += time.perf_counter() - started
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def _fill(self, source: Iterator[Batch]) -> None:
        try:
            for item in source:
                if not self._put(item):
                    return
            self._put(StopIteration())
        except Exception as error:  # noqa: BLE001 (raised again in the thread that waits)
            self._put(error)

    def _put(self, item: Batch | BaseException) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False
