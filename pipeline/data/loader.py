"""Micro-batches for one data-parallel rank, read ahead by a thread."""

import queue
import threading
import time
from collections.abc import Iterator

import numpy as np
import torch

from pipeline.data.order import sample_ids
from pipeline.data.token_stream import TokenStream
from pipeline.errors import DataError
from pipeline.objectives import causal


class MicroBatches:
    """The micro-batches of one data-parallel rank: int64 inputs and labels, each of shape [micro_batch_size, seq_len].

    Micro-batch m of rank r holds the positions after (m * size + r) * micro_batch_size of the run's order, so all ranks
    together use the same samples in a step, however many ranks there are.

    Raises:
        DataError: the data set is shorter than one sample.
    """

    def __init__(self, stream: TokenStream, *, seq_len: int, micro_batch_size: int, rank: int, size: int) -> None:
        self.stream = stream
        self.length = causal.window_length(seq_len)
        self.num_samples = stream.num_windows(self.length)
        self.micro_batch_size = micro_batch_size
        self.rank = rank
        self.size = size
        if not self.num_samples:
            raise DataError(
                f"the data set has {len(stream)} tokens, fewer than one sample of model.seq_len={seq_len} and the "
                "token after it. Add text or lower model.seq_len."
            )

    def shuffled(self, *, seed: int, consumed_samples: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Without end, in the run's order, from the sample after the first `consumed_samples` of all ranks together."""
        position = consumed_samples + self.rank * self.micro_batch_size
        while True:
            yield self._batch(
                sample_ids(num_samples=self.num_samples, seed=seed, position=position, count=self.micro_batch_size)
            )
            position += self.size * self.micro_batch_size

    def in_order(self, num_micro_batches: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The first `num_micro_batches` of this rank, unshuffled: for evaluation."""
        for index in range(num_micro_batches):
            first = (index * self.size + self.rank) * self.micro_batch_size
            yield self._batch(np.arange(first, first + self.micro_batch_size))

    def _batch(self, ids: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        windows = np.stack([self.stream.window(int(index), self.length) for index in ids])
        inputs, labels = causal.inputs_and_labels(windows)
        return torch.from_numpy(inputs.copy()), torch.from_numpy(labels.copy())


class Prefetcher(Iterator[tuple[torch.Tensor, torch.Tensor]]):
    """The items of `source`, up to `depth` of them read ahead by a thread. An error in the thread is raised here.

    `wait_seconds` sums the time that the caller has waited for data.
    """

    def __init__(self, source: Iterator[tuple[torch.Tensor, torch.Tensor]], depth: int) -> None:
        self.wait_seconds = 0.0
        self._queue: queue.Queue[tuple[torch.Tensor, torch.Tensor] | BaseException] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(source,), name="prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
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

    def _fill(self, source: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> None:
        try:
            for item in source:
                if not self._put(item):
                    return
            self._put(StopIteration())
        except Exception as error:  # noqa: BLE001 (raised again in the thread that waits)
            self._put(error)

    def _put(self, item: tuple[torch.Tensor, torch.Tensor] | BaseException) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False
