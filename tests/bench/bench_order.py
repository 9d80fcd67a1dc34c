"""How many sample ids a second the order gives, which is to be 5 million: `python tests/bench/bench_order.py`."""

import time

from pipeline.data.order import sample_ids

NUM_SAMPLES = 300_000_000  # a trillion tokens in sequences of 4,096, and some
REPEATS = 5


def ids_per_second(count: int) -> float:
    """The best of several measurements of `count` ids at once."""
    seconds = []
    for repeat in range(REPEATS):
        started = time.perf_counter()
        sample_ids(num_samples=NUM_SAMPLES, seed=1, position=repeat * count, count=count)
        seconds.append(time.perf_counter() - started)
    return count / min(seconds)


if __name__ == "__main__":
    for count in (8, 1024, 1_000_000):
        print(f"{count:>9,} ids at once: {ids_per_second(count) / 1e6:.2f} million ids/s")
