"""How many sample ids a second the order gives, which is to be 5 million: `python tests/bench/bench_order.py`."""

import time

from pipeline.data.order import sample_ids

NUM_SAMPLES = 300_000_000  # a trillion tokens in sequences of 4,096, and some
REPEATS = 5
CALLS = 4


def ids_per_second(count: int) -> float:
    """The best of several measurements of `count` ids at once, by the processor's time."""
    seconds = []
    for repeat in range(REPEATS):
        started = time.process_time()
        for call in range(CALLS):
            sample_ids(num_samples=NUM_SAMPLES, seed=1, position=(repeat * CALLS + call) * count, count=count)
        seconds.append(time.process_time() - started)
    return CALLS * count / min(seconds)


if __name__ == "__main__":
    for count in (8, 1024, 65_536, 1_000_000):
        print(f"{count:>9,} ids at once: {ids_per_second(count) / 1e6:.2f} million ids/s")
