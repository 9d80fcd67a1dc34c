"""How long a data set of many shards takes to open, which is to be under 1 s: `python -m tests.bench.bench_open`."""

import sys
import tempfile
import time
from pathlib import Path

from data_prep.manifest import load_manifest
from pipeline.data.token_stream import TokenStream
from pipeline.shards import find_shards
from tests.data_sets import write_data_set

NUM_SHARDS = 5_000


def seconds(open_it: object, folder: Path) -> float:
    """The best of three."""
    assert callable(open_it)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        open_it(folder)
        times.append(time.perf_counter() - started)
    return min(times)


def _open_stream(folder: Path) -> TokenStream:
    return TokenStream(find_shards(str(folder)))


if __name__ == "__main__":
    num_shards = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_SHARDS
    with tempfile.TemporaryDirectory() as name:
        folder = write_data_set(Path(name) / "data", [[[1, 2, 3]]] * num_shards)
        print(f"{num_shards:,} shards: load_manifest {seconds(load_manifest, folder):.3f} s")
        print(f"{num_shards:,} shards: TokenStream   {seconds(_open_stream, folder):.3f} s")
