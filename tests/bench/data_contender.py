"""One measurement of `bench_data.py`, in a process of its own: start-up, or a rate; printed as a line of JSON."""

import argparse
import importlib
import json
import re
import time
from itertools import islice
from pathlib import Path
from typing import Any

from tests.bench.data_task import TASKS, Open, Reader

MODULES = {"ours": "tests.bench.our_samples", "megatron": "tests.bench.megatron_samples"}
MICRO_BATCH = 32
LOOKED_AT = 10 * MICRO_BATCH  # samples before the clock starts, whose tokens are counted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("measure", choices=["start", "rate"])
    parser.add_argument("side", choices=MODULES)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--reading", default="mmap")
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    started = time.perf_counter()
    module = importlib.import_module(MODULES[args.side])
    if args.side == "megatron":
        module.start_process_group()
    imports = time.perf_counter() - started
    found = _start(module, args) if args.measure == "start" else _rate(module, args)
    print(json.dumps(found | {"import_seconds": imports}))


def _start(module: Any, args: argparse.Namespace) -> dict[str, float]:
    """From nothing opened to the first sample made; how far the memory grew meanwhile at most."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    before = _memory("VmRSS")
    started = time.perf_counter()
    next(_opened(module, args, at_once=1).stream())
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_bytes": _memory("VmHWM") - before}


def _rate(module: Any, args: argparse.Namespace) -> dict[str, float]:
    """Samples per second of the processor's time, and by the clock on the wall."""
    reader = _opened(module, args, at_once=MICRO_BATCH)
    # One stream throughout: an item is let go when the next one is there, as in training.
    stream = reader.stream()
    tokens = [reader.input_tokens(item) for item in islice(stream, LOOKED_AT // reader.at_once)]
    count, wall, cpu = 0, time.perf_counter(), time.process_time()
    for item in stream:  # noqa: B007
        count += reader.at_once
        if time.perf_counter() - wall >= args.seconds:
            break
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"per_second": count / cpu, "per_wall_second": count / wall, "input_tokens": sum(tokens) / len(tokens)}


def _opened(module: Any, args: argparse.Namespace, *, at_once: int) -> Reader:
    open_samples: Open = module.open_samples
    return open_samples(TASKS[args.task], args.folder, cache=args.cache, at_once=at_once, reading=args.reading)


def _memory(name: str) -> int:
    [kilobytes] = re.findall(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


if __name__ == "__main__":
    main()
