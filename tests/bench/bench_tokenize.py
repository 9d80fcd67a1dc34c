"""Tokenizing beside other tools, in the same run: the same text, tokenizer and cores, in turns.

    python tests/bench/tokenize.py --folder FOLDER --megatron MEGATRON_LM --peers-python PYTHON

FOLDER gets the texts and tokenizers (`text.py`, `tokenizer_folders.py`) at the first run. MEGATRON_LM is a checkout of
NVIDIA/Megatron-LM, PYTHON an interpreter that has what its tools import, and datatrove. Without them their rows are
left out. A worker has one core, as has each tool with all its processes. Rates are of the bytes of the text as JSON
lines, whatever its format. "Net" is without start-up: the time for a large file less that for one of a megabyte. "ids"
says whether the .bin files equal those of the first row; Hugging Face's form of Mistral's tokenizer, which
`preprocess_data_fast.py` takes, makes special tokens of the names `<s>` and `</s>` in a text, the others do not.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import text, tokenizer_folders
from tests.bench.contenders import (
    ALONE,
    CLASSIC,
    ENGINES,
    FAST,
    GZ,
    OURS,
    PARQUET,
    TWO_WORKERS,
    ZST,
    Contender,
    alone,
    datatrove,
    megatron,
    ours,
)
from tests.bench.measured_run import MeasuredRun, measured_run

SMALL = text.MEGABYTES[0]
STARTS = 5


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Contenders that read the same text with the same tokenizer."""

    name: str
    text: str
    size: int
    repeats: int
    contenders: Sequence[Contender]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a contender reached; rates in bytes per second, medians.

    Attributes:
        total: with start-up.
        net: without start-up; None if the large file did not take longer than the small one.
        net_cpu: the same by the time of the processors, which other work on the machine does not prolong as much.
        digest: of the ids, as the .bin files hold them.
    """

    comparison: str
    contender: str
    cores: int
    seconds: float
    small_seconds: float
    total: float
    net: float | None
    net_cpu: float | None
    peak_bytes: int
    digest: str
    engine: str


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is wanted of a rate of ours, as a multiple of another's."""

    comparison: str
    mine: str
    other: str
    rate: str
    at_least: float


GOALS = (
    Goal(comparison="gpt2", mine=OURS, other=CLASSIC, rate="net", at_least=40),
    Goal(comparison="mistral", mine=OURS, other=CLASSIC, rate="net", at_least=9),
    Goal(comparison="gpt2 large", mine=OURS, other=FAST, rate="net", at_least=1.1),
    Goal(comparison="gpt2 large", mine=OURS, other=FAST, rate="total", at_least=2.5),
    Goal(comparison="gpt2 workers", mine=TWO_WORKERS, other=OURS, rate="net", at_least=1.7),
    Goal(comparison="gpt2 large", mine=OURS, other=ALONE, rate="net", at_least=0.7),
    *(Goal(comparison="gpt2 large", mine=mine, other=ALONE, rate="net", at_least=0.55) for mine in (GZ, ZST, PARQUET)),
)
MAX_PEAK_BYTES, MAX_START_SECONDS = 600e6, 1.0


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    for tokenizer in ("gpt2", "mistral"):
        slow = [*megatron(args, tokenizer, CLASSIC), *datatrove(args, tokenizer)]
        fast = [*megatron(args, tokenizer, FAST), ours(args, tokenizer, OURS)]
        engines = [alone(args, tokenizer, engine) for engine in ENGINES[tokenizer]]
        others = [ours(args, tokenizer, name) for name in (GZ, ZST, PARQUET)]
        yield Comparison(
            name=tokenizer, text="en", size=args.size, repeats=args.repeats, contenders=[*slow, *fast, *engines]
        )
        if tokenizer == "gpt2":
            yield Comparison(
                name="gpt2 large",
                text="en",
                size=args.large_size,
                repeats=args.repeats,
                contenders=[*fast, *others, *engines],
            )
            yield Comparison(  # often and close together: other work on the machine disturbs two cores most
                name="gpt2 workers",
                text="en",
                size=args.large_size,
                repeats=3 * args.repeats,
                contenders=[ours(args, tokenizer, name) for name in (OURS, TWO_WORKERS)],
            )
        yield Comparison(
            name=f"{tokenizer} unique words", text="unique", size=args.large_size, repeats=1, contenders=fast
        )


def rows(folder: Path, comparison: Comparison) -> list[Row]:
    """Let the contenders run in turns, and sum up the runs of each."""
    runs: dict[tuple[str, int], list[MeasuredRun]] = {}
    digests: dict[str, str] = {}
    for repeat in range(comparison.repeats):
        for contender in comparison.contenders:
            for size in (SMALL, comparison.size):
                run, digests[contender.name] = _run(folder, contender, f"{comparison.text}-{size}")
                runs.setdefault((contender.name, size), []).append(run)
                said = f"{comparison.name}, {repeat + 1} of {comparison.repeats}: {contender.name}, {size} MB"
                print(f"{said}: {run.seconds:.2f} s, {run.cpu_seconds:.2f} s of CPU", file=sys.stderr)
    sizes = [(folder / "text" / f"{comparison.text}-{size}.jsonl").stat().st_size for size in (SMALL, comparison.size)]
    return [
        _row(comparison, one, runs[one.name, SMALL], runs[one.name, comparison.size], sizes, digests[one.name])
        for one in comparison.contenders
    ]


def _run(folder: Path, contender: Contender, name: str) -> tuple[MeasuredRun, str]:
    path, out = folder / "text" / f"{name}{contender.suffix}", folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    path.read_bytes()  # it is in the page cache for all alike
    cores = sorted(os.sched_getaffinity(0))[: contender.cores]
    environment = {**os.environ, **contender.environment}
    run = measured_run(contender.command(path, out), cores=cores, folder=out, environment=environment)
    if contender.prints_seconds:
        seconds, cpu_seconds = map(float, run.output.split()[-2:])
        run = dataclasses.replace(run, seconds=seconds, cpu_seconds=cpu_seconds)
    digest = hashlib.blake2b(digest_size=8)
    shards = sorted(out.rglob("*.bin"))
    for shard in shards:
        digest.update(shard.read_bytes())
    return run, digest.hexdigest() if shards else ""


def _row(
    comparison: Comparison,
    contender: Contender,
    small: Sequence[MeasuredRun],
    large: Sequence[MeasuredRun],
    sizes: Sequence[int],
    digest: str,
) -> Row:
    seconds, small_seconds = (statistics.median(run.seconds for run in some) for some in (large, small))
    cpu, small_cpu = (statistics.median(run.cpu_seconds for run in some) for some in (large, small))
    said = [line for line in large[-1].output.splitlines() if line.startswith('{"data_set"')]
    return Row(
        comparison=comparison.name,
        contender=contender.name,
        cores=contender.cores,
        seconds=seconds,
        small_seconds=small_seconds,
        total=sizes[1] / seconds,
        net=(sizes[1] - sizes[0]) / (seconds - small_seconds) if seconds > small_seconds else None,
        net_cpu=(sizes[1] - sizes[0]) / (cpu - small_cpu) if cpu > small_cpu else None,
        peak_bytes=max(run.peak_bytes for run in [*small, *large]),
        digest=digest,
        engine=json.loads(said[0])["preparations"][0]["engine"].split()[0] if said else "",
    )


def start_seconds(args: argparse.Namespace, tokenizer: str) -> float:
    """The median time of a whole job on one document, on all cores: the first token is written before its end."""
    (args.folder / "text" / "one-0.jsonl").write_text('{"text": "The first token of a data set."}\n')
    contender = dataclasses.replace(ours(args, tokenizer, OURS), cores=len(os.sched_getaffinity(0)))
    runs = [_run(args.folder, contender, "one-0")[0] for _ in range(STARTS)]
    return statistics.median(run.seconds for run in runs)


def results(args: argparse.Namespace, found: Sequence[Row]) -> Iterator[dict[str, object]]:
    """What is wanted and what was measured, for each goal whose rows are there."""
    by_name = {(row.comparison, row.contender): row for row in found}
    for goal in GOALS:
        mine = by_name.get((goal.comparison, goal.mine))
        other = by_name.get((goal.comparison, goal.other.format(mine.engine if mine else "")))
        if not (mine and other):
            continue
        what = f"{goal.comparison}: {goal.mine} / {other.contender}, {goal.rate}"
        if ratio := _ratio(mine, other, goal.rate):
            yield {"what": what, "measured": ratio, "at_least": goal.at_least, "met": ratio >= goal.at_least}
        if goal.rate == "net" and mine.cores == other.cores and (ratio := _ratio(mine, other, "net_cpu")):
            yield {"what": f"{what}, by CPU time", "measured": ratio}
    peak = max((row.peak_bytes for row in found if row.contender.startswith(OURS)), default=0)
    yield {"what": "peak of a process, MB", "measured": peak / 1e6, "met": peak <= MAX_PEAK_BYTES, "at_most": 600}
    for tokenizer in ENGINES:
        taken = start_seconds(args, tokenizer)
        what = f"{tokenizer}: one document from start to end, s"
        yield {"what": what, "measured": taken, "at_most": MAX_START_SECONDS, "met": taken <= MAX_START_SECONDS}


def _ratio(mine: Row, other: Row, rate: str) -> float | None:
    rates = getattr(mine, rate), getattr(other, rate)
    return rates[0] / rates[1] if all(rates) else None


def show(found: Sequence[Row], goals: Sequence[Mapping[str, object]]) -> None:
    titles = ("", "contender", "cores", "s", "MB/s", "net MB/s", "net of CPU", "peak MB", "ids")
    print(f"{titles[0]:20} {titles[1]:24} " + " ".join(f"{title:>10}" for title in titles[2:]))
    reference = {row.comparison: row.digest for row in reversed(found) if row.digest}
    for row in found:
        rates = [rate and rate / 1e6 for rate in (row.total, row.net, row.net_cpu)]
        shown = " ".join(f"{one:10.2f}" if one else f"{'-':>10}" for one in (row.seconds, *rates, row.peak_bytes / 1e6))
        ids = {"": "-", reference.get(row.comparison): "equal"}.get(row.digest, "DIFFER")
        print(f"{row.comparison:20} {row.contender:24} {row.cores:>10} {shown} {ids:>10}")
    for goal in goals:
        bound = f"at least {goal['at_least']}" if "at_least" in goal else f"at most {goal.get('at_most')}"
        verdict = f"{bound}: {'met' if goal['met'] else 'MISSED'}" if "met" in goal else ""
        print(f"{goal['what']:75} {goal['measured']:8.2f}  {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description="compare tokenizing with other tools")
    parser.add_argument("--folder", type=Path, required=True, help="for texts, tokenizers and results")
    parser.add_argument("--megatron", type=Path, help="checkout of NVIDIA/Megatron-LM")
    parser.add_argument("--peers-python", help="interpreter that has what the other tools import")
    parser.add_argument("--engine", default="auto", help="of ours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, choices=text.MEGABYTES[1:], default=100, help="MB, for the slow tools too")
    parser.add_argument("--large-size", type=int, choices=text.MEGABYTES[1:], default=400, help="MB, for the fast ones")
    parser.add_argument("--only", nargs="+", help="names of comparisons")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    args = parser.parse_args()
    args.folder = args.folder.absolute()
    text.write_files(args.folder / "text")
    tokenizer_folders.write_tokenizers(args.folder / "tokenizers")
    if not (args.megatron and args.peers_python):
        print("Megatron-LM is left out: it needs --megatron and --peers-python", file=sys.stderr)
    if not args.peers_python:
        print("datatrove is left out: it needs --peers-python", file=sys.stderr)
    wanted = [one for one in comparisons(args) if not args.only or one.name in args.only]
    found = [row for comparison in wanted for row in rows(args.folder, comparison)]
    goals = list(results(args, found))
    if args.json:
        print(json.dumps({"rows": [dataclasses.asdict(row) for row in found], "goals": goals}))
    else:
        show(found, goals)


if __name__ == "__main__":
    main()
