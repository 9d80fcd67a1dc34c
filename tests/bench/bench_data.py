"""What training reads, beside megatron-core's data sets on the same shards: `python tests/bench/data.py`.

Start-up is the time from a process that has imported everything to its first sample, and the most that its memory grows
by then, for shards of 1, 10 and 100 million documents of 20 tokens on average; their files are in the page cache, and
their .bin is a hole. Ours includes reading and checking the config, and opening the tokenizer where the objective needs
it. Megatron-core builds indices at the first start, and finds them again at the next one.

Rates are of samples that are made in shuffled order, per second of the processor's time, from 150 MB of tokens of
English text in the page cache. Ours come in micro-batches of 32 as a run reads them, Megatron-core's one by one, not
yet put together. "input tokens" is how many of a sample are not padding: Megatron-core's samples end with the document.

Each measurement has a process of its own on one core; both sides take turns. Sizes are in millions of documents; the
largest needs 14 GB of disk, 8 GB of them in holes, and 6 GB of memory.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.data_corpora import write_corpus, write_short_documents, write_tokenizer
from tests.bench.data_task import CAUSAL, MASKED, SPAN, TASKS, TOKENIZER, Task

ROOT = Path(__file__).resolve().parents[2]
MILLION = 1_000_000
NUM_TOKENS = 75 * MILLION
START_TASKS = (CAUSAL, next(task for task in MASKED if task.pairs and task.masking == "whole_word"), SPAN)
AT_LEAST = {"causal": 10.0, "masked": 3.0, "span": 3.0}  # times the rate of Megatron-core that are wanted
MMAP, PREAD, MEGATRON = "ours, mmap", "ours, pread", "Megatron-core"

Found = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One side's process for one measurement."""

    name: str
    side: str
    reading: str = "mmap"


CONTENDERS = (
    Contender(name=MMAP, side="ours"),
    Contender(name=PREAD, side="ours", reading="pread"),
    Contender(name=MEGATRON, side="megatron"),
)
OURS, THEIRS = CONTENDERS[0], CONTENDERS[2]


def measured(what: str, contender: Contender, task: Task, folder: Path, args: argparse.Namespace) -> Found | None:
    """What a process found; None if it did not end in time."""
    core = str(min(os.sched_getaffinity(0)) if args.core is None else args.core)
    command = ["taskset", "--cpu-list", core, sys.executable, "-W", "ignore", "-m", "tests.bench.data_contender"]
    command += [what, contender.side, task.name, str(folder), "--reading", contender.reading]
    command += ["--cache", str(folder / "indices"), "--seconds", str(args.seconds)]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=args.limit)
    except subprocess.TimeoutExpired:
        found = None
    else:
        if run.returncode:
            raise SystemExit(f"{' '.join(command)}\nended with {run.returncode}:\n{run.stderr[-3000:]}")
        found = json.loads(run.stdout.splitlines()[-1])
    print(f"{folder.name}, {task.name}, {contender.name}, {what}: {found}", file=sys.stderr)
    return found


def start_up(folder: Path, task: Task, args: argparse.Namespace) -> dict[str, Found | None]:
    """Medians of ours, of Megatron-core's first start, and of its next one."""
    runs: dict[str, list[Found | None]] = {}
    for _ in range(args.repeats):
        shutil.rmtree(folder / "indices", ignore_errors=True)
        runs.setdefault("ours", []).append(measured("start", OURS, task, folder, args))
        for name in ("first", "next"):
            # A start that took too long built nothing for the next one.
            late = None in runs.get("first", [])
            runs.setdefault(name, []).append(None if late else measured("start", THEIRS, task, folder, args))
    return {name: _medians(found) for name, found in runs.items()}


def rates(folder: Path, task: Task, args: argparse.Namespace) -> dict[str, Found]:
    """Medians of each contender."""
    runs: dict[str, list[Found | None]] = {}
    for _ in range(args.repeats):
        for contender in CONTENDERS:
            runs.setdefault(contender.name, []).append(measured("rate", contender, task, folder, args))
    found = {name: _medians(some) for name, some in runs.items()}
    return {name: medians for name, medians in found.items() if medians is not None}


def _medians(runs: Sequence[Found | None]) -> Found | None:
    whole = [run for run in runs if run is not None]
    if len(whole) < len(runs):
        return None
    return {key: statistics.median(run[key] for run in whole) for key in whole[0]}


def start_table(rows: Sequence[tuple[int, Task, dict[str, Found | None]]], limit: float) -> Iterator[str]:
    head = ("ours, s", "first start, s", "next start, s", "times ours", "ours, MB", "first, MB", "next, MB")
    yield from _head("million documents", "objective", *head)
    for size, task, found in rows:
        ours, first, later = found["ours"], found["first"], found["next"]
        assert ours is not None
        ratio = _shown(first and {"ratio": first["seconds"] / ours["seconds"]}, "ratio", ".0f", "-")
        times = [_shown(one, "seconds", ".3f", f"> {limit:.0f}") for one in (ours, first, later)]
        sizes = [_shown(one and {"mb": one["peak_bytes"] / 1e6}, "mb", ".1f", "-") for one in (ours, first, later)]
        yield _row(size, task.name, *times, ratio, *sizes)


def rate_table(rows: Sequence[tuple[Task, dict[str, Found]]]) -> Iterator[str]:
    ratios = ("ratio, mmap", "ratio, pread", "wanted")
    yield from _head("samples/s, one core", MMAP, PREAD, MEGATRON, *ratios, "input tokens", "theirs")
    for task, found in rows:
        mmap, pread, megatron = (found[name]["per_second"] for name in (MMAP, PREAD, MEGATRON))
        tokens = [f"{found[name]['input_tokens']:.0f}" for name in (MMAP, MEGATRON)]
        reached = [f"{mmap / megatron:.1f}", f"{pread / megatron:.1f}", f"{AT_LEAST[task.objective]:.0f}"]
        yield _row(task.name, f"{mmap:,.0f}", f"{pread:,.0f}", f"{megatron:,.0f}", *reached, *tokens)


def imports(rows: Sequence[tuple[int, Task, dict[str, Found | None]]]) -> str:
    """How long the imports took, which the table leaves out."""
    seconds = {
        name: statistics.median(run["import_seconds"] for _, _, found in rows if (run := found[name]) is not None)
        for name in ("ours", "first")
        if any(found[name] for _, _, found in rows)
    }
    return f"\nImports, before the clock starts, in seconds (median): {seconds}"


def _shown(found: Found | None, key: str, form: str, otherwise: str) -> str:
    return format(found[key], form) if found is not None else otherwise


def _head(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield f"|{'---|' * len(cells)}"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


@contextmanager
def corpus(parent: Path, name: str) -> Iterator[Path]:
    """A folder for a corpus, with the tokenizer; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=parent) as folder:
        (Path(folder) / TOKENIZER).symlink_to(parent / TOKENIZER)
        yield Path(folder)


def run(parent: Path, args: argparse.Namespace) -> None:
    tokenizer = write_tokenizer(parent)
    for_rates = [task for task in TASKS.values() if task.name in args.tasks]
    for_start = [task for task in START_TASKS if task.name in args.tasks]
    if args.rates and for_rates:
        with corpus(parent, "rates") as folder:
            write_corpus(folder, tokenizer, num_tokens=NUM_TOKENS)
            print(*rate_table([(task, rates(folder, task, args)) for task in for_rates]), sep="\n")
    rows = []
    for size in args.sizes if for_start else ():
        with corpus(parent, f"{size}-million") as folder:
            write_short_documents(folder, tokenizer, size * MILLION)
            rows += [(size, task, start_up(folder, task, args)) for task in for_start]
    if rows:
        print("", *start_table(rows, args.limit), imports(rows), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, help="where corpora are made and removed again; a temporary folder")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 10, 100], help="for start-up, in millions")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=[*TASKS], metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--no-rates", dest="rates", action="store_false", help="measure start-up alone")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each rate")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a process is given up")
    parser.add_argument("--core", type=int, help="the core for all; the first one")
    args = parser.parse_args()
    if args.dir is not None:
        args.dir.mkdir(parents=True, exist_ok=True)
        run(args.dir.resolve(), args)
        return
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), args)


if __name__ == "__main__":
    main()
