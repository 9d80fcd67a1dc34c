"""How many sample ids a second the order gives, which is to be 5 million: `python tests/bench/bench_order.py`."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from pipeline.data.order import SourceOrder, permuted

NUM_SAMPLES = 300_000_000  # a trillion tokens in sequences of 4,096, and some
REPEATS = 5
MEASURED_IDS = 1_000_000  # in one measurement, at least
MICRO_BATCH = 32

Ids = npt.NDArray[np.int64]


def ids_per_second(ids_at: Callable[[Ids], object], count: int) -> float:
    """The best of several measurements of `count` ids at once, by the processor's time."""
    seconds, calls = [], max(MEASURED_IDS // count, 4)
    for repeat in range(REPEATS):
        started = time.process_time()
        for call in range(calls):
            first = (repeat * calls + call) * count
            ids_at(np.arange(first, first + count))
        seconds.append(time.process_time() - started)
    return calls * count / min(seconds)


def main() -> None:
    for size in (NUM_SAMPLES, 10**12):
        for count in (32, 1024, 65_536, 1_000_000):
            rate = ids_per_second(partial(permuted, size=size, key="1"), count)
            print(f"permutation of {size:,}, {count:>9,} ids at once: {rate / 1e6:.2f} million ids/s")
    order = SourceOrder(num_samples=NUM_SAMPLES, key="1")
    rate = ids_per_second(order.epochs_and_ids, MICRO_BATCH)
    print(f"order of a source, in micro-batches of {MICRO_BATCH}: {rate / 1e6:.2f} million ids/s")


if __name__ == "__main__":
    main()
