"""Training steps beside the same model in transformers, and beside our own splits: `python tests/bench/step.py`.

Both sides train a model of 15 to 30 million parameters in fp32 on random tokens, from the same weights, with fused
AdamW and clipping of gradients; ours by its engine, the other by transformers' class in a plain torch loop. The first
losses must agree. Each contender has a process of its own, since ours changes torch's state, and they take turns step
by step, so that what else the machine does hits both alike; the one that waits sleeps. A ratio is the median of the
ratios of neighbouring steps: by the clock on the wall, and by the processor's time, which other work moves less.

Our splits take turns likewise: one rank with all threads, and two ranks with half of them each.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from tests.bench.page import head, machine, row, write_section
from tests.bench.step_process import Contender, Step, StepProcess
from tests.bench.step_task import TASKS, StepTask

OURS = Contender(name="ours", side="ours")
PLAIN = Contender(name="transformers", side="transformers")
SPLITS = (OURS, Contender(name="TP 2", side="ours", tensor=2), Contender(name="PP 2", side="ours", pipeline=2))
ACCUMULATED = (1, 2)
ACCUMULATED_BY_SPLITS = 4  # micro-batches; stages wait for one another less the more there are
WARM_UP = 2
SAME_LOSS = 5e-3  # relative; BERT's labels are averaged over the step by ours, over each micro-batch by the other
SECTION = "training steps"

Steps = dict[str, list[Step]]


def in_turns(contenders: Sequence[Contender], task: StepTask, args: argparse.Namespace, *, accumulate: int) -> Steps:
    """The steps of each contender, without those of warming up."""
    with ExitStack() as stack:
        running = {
            contender.name: stack.enter_context(
                closing(
                    StepProcess(contender, task.name, accumulate=accumulate, threads=args.threads, zero_stage=args.zero)
                )
            )
            for contender in contenders
        }
        steps: Steps = {name: [] for name in running}
        for _ in range(WARM_UP + args.steps):
            for name, process in running.items():
                steps[name].append(process.step())
    _same_losses(task, steps)
    return {name: found[WARM_UP:] for name, found in steps.items()}


def _same_losses(task: StepTask, steps: Steps) -> None:
    losses = {name: found[0].loss for name, found in steps.items()}
    expected = losses[OURS.name]
    if any(abs(loss - expected) > SAME_LOSS * expected for loss in losses.values()):
        raise SystemExit(f"{task.name}: the first losses are not those of the same model: {losses}")


def ratio(steps: Steps, name: str, other: str, figure: str = "seconds") -> list[float]:
    """How many times as fast `name` is as `other`, of each pair of neighbouring steps."""
    pairs = zip(steps[name], steps[other], strict=True)
    return [getattr(theirs, figure) / getattr(ours, figure) for ours, theirs in pairs]


def speed(steps: Sequence[Step], tokens: int) -> str:
    return f"{tokens / statistics.median(step.seconds for step in steps):,.0f}"


def beside_transformers(tasks: Sequence[StepTask], args: argparse.Namespace) -> Iterator[str]:
    title = ("tokens/s, one rank", "micro-batches", OURS.name, PLAIN.name)
    yield from head(*title, "ratio", "its quarters", "by processor time")
    for task in tasks:
        for accumulate in args.accumulate:
            steps = in_turns((OURS, PLAIN), task, args, accumulate=accumulate)
            found = ratio(steps, OURS.name, PLAIN.name)
            low, middle, high = statistics.quantiles(found, n=4)
            by_processor = statistics.median(ratio(steps, OURS.name, PLAIN.name, "processor_seconds"))
            tokens = task.tokens * accumulate
            speeds = (speed(steps[name], tokens) for name in (OURS.name, PLAIN.name))
            line = row(
                task.name, accumulate, *speeds, f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{by_processor:.2f}"
            )
            print(line, file=sys.stderr)
            yield line


def beside_splits(tasks: Sequence[StepTask], args: argparse.Namespace) -> Iterator[str]:
    yield from head("tokens/s", "one rank", *(f"{split.name}, times that" for split in SPLITS[1:]))
    for task in tasks:
        steps = in_turns(SPLITS, task, args, accumulate=ACCUMULATED_BY_SPLITS)
        ratios = (f"{statistics.median(ratio(steps, split.name, OURS.name)):.2f}" for split in SPLITS[1:])
        line = row(task.name, speed(steps[OURS.name], task.tokens * ACCUMULATED_BY_SPLITS), *ratios)
        print(line, file=sys.stderr)
        yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=[*TASKS], metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--accumulate", type=int, nargs="+", default=[*ACCUMULATED], help="micro-batches of a step")
    parser.add_argument("--steps", type=int, default=10, help="of each contender, 2 or more")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of a contender")
    parser.add_argument("--zero", type=int, choices=[0, 1], default=0, help="parallel.zero_stage of ours")
    parser.add_argument("--no-splits", dest="splits", action="store_false")
    parser.add_argument("--page", type=Path, help="write the tables to the section of this page, too")
    args = parser.parse_args()
    tasks = [TASKS[name] for name in args.tasks]
    load = os.getloadavg()[0]
    lines = [machine(f"{args.threads} threads of a CPU, ZeRO {args.zero}, load before {load:.1f}"), ""]
    lines += beside_transformers(tasks, args)
    if args.splits:
        lines += ["", *beside_splits(tasks, args)]
    print(*lines, sep="\n")
    if args.page:
        write_section(args.page, SECTION, "\n".join(lines))


if __name__ == "__main__":
    main()
