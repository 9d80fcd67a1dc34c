"""The offline job from outside: plan it or join it, run workers, show how far they are, finish the data set."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from data_prep.engine.engine_choice import AUTO
from data_prep.errors import DataError, Interrupted
from data_prep.manifest import Manifest
from data_prep.progress import progress, scaled
from data_prep.tokenizing.crew import Crew
from data_prep.tokenizing.finish import finish, refuse_changed_input
from data_prep.tokenizing.job import Job, TokenizeConfig
from data_prep.tokenizing.joining import Joined, join, undo
from data_prep.tokenizing.monitor import Monitor, Snapshot
from data_prep.tokenizing.options import Options
from data_prep.tokenizing.stopping import stopping_on_signals
from data_prep.tokenizing.worker import Worker, explain_os_error, share

LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one start has come to.

    Attributes:
        manifest: of the data set; None if other tasks have units left.
        num_units_left: that other tasks have to do.
    """

    manifest: Manifest | None
    num_units_left: int = 0


def tokenize(
    *,
    inputs: Sequence[Path | str],
    tokenizer: Path,
    out: Path,
    config: TokenizeConfig | None = None,
    options: Options | None = None,
    engine: str = AUTO,
    workers: int = 1,
    task: str = "0/1",
) -> Outcome:
    """Make the data set `out` from the text that the patterns `inputs` name, or go on with making it.

    Equal inputs and settings make equal bytes, whatever the number of workers, tasks and interruptions. What is done is
    kept when a job fails, is stopped or killed: the same call goes on. Any number of processes on any number of
    machines may work on one folder.

    Args:
        tokenizer: its folder or file.
        engine: the library that makes the ids, or auto.
        workers: processes; a single one works in this process.
        task: `I/N`: do every N-th unit, from unit I on, only.

    Raises:
        DataError: an input is missing, bad or changed, `out` holds something else, or the disk is full.
        Interrupted: the process was asked to stop.
    """
    config, options = config or TokenizeConfig(), options or Options()
    existed = out.is_dir()
    joined: Joined | None = None
    try:
        with stopping_on_signals() as stop:
            joined = join(
                inputs=[*map(str, inputs)], tokenizer=tokenizer, out=out, config=config, engine=engine, stop=stop
            )
            job = joined.job
            units = job.request.units()
            refuse_changed_input(out, job.request)
            own = share(units, task)
            with shown(out, job) as last:
                if min(workers, len(own)) <= 1:
                    Worker(out, job, options, stop, joined.tokenizer, joined.engine).run(own)
                else:
                    with Crew(out, options, size=min(workers, len(own)), task=task) as crew:
                        crew.wait(stop, lambda: last().num_units_done == len(units))
            manifest = finish(out, job, options)
    except Interrupted as interrupted:
        raise Interrupted(_interrupted(out, joined)) from interrupted
    except BaseException as error:
        if joined is not None and joined.is_new:
            undo(out)
        if isinstance(error, OSError):
            raise DataError(explain_os_error(out, error)) from error
        raise
    finally:
        if not existed:
            with suppress(OSError):  # it holds something now
                out.rmdir()
    return Outcome(manifest=manifest, num_units_left=0 if manifest else _num_left(out))


@contextmanager
def shown(out: Path, job: Job | None = None) -> Iterator[Callable[[], Snapshot]]:
    """Shows how far the job in `out` is for as long as the block runs; gives a function of the last look at it."""
    monitor = Monitor(out, job)
    last = first = monitor.look()
    started = time.monotonic()
    done = threading.Event()

    def keep_looking() -> None:
        nonlocal last
        with progress("tokenize", total=last.total_weight, done=last.weight) as bar:
            while True:
                is_last = done.wait(LOOK_SECONDS)
                before = last
                with suppress(OSError):  # the folder may be gone, and the worker says so
                    last = monitor.look()
                rate = (last.num_tokens - first.num_tokens) / (time.monotonic() - started)
                bar.note(note(last, tokens_per_second=rate))
                bar.update(last.weight - before.weight)
                if is_last:
                    return

    thread = threading.Thread(target=keep_looking, name="progress", daemon=True)
    thread.start()
    try:
        yield lambda: last
    finally:
        done.set()
        thread.join()


def follow(out: Path) -> None:
    """Show how far the job in `out` is until its data set is complete."""
    with stopping_on_signals() as stop, shown(out) as last:
        while not last().is_complete:
            stop.sleep(LOOK_SECONDS)


def note(snapshot: Snapshot, *, tokens_per_second: float) -> str:
    """What a bar shows beside the bytes."""
    parts = [f"{snapshot.counters.documents:,} documents", f"{scaled(snapshot.num_tokens)}tokens"]
    parts += [f"{scaled(tokens_per_second)}tokens/s"]
    parts += [f"{snapshot.counters.num_bad:,} bad records"] * bool(snapshot.counters.num_bad)
    parts += [f"{len(snapshot.held)} workers"] * (len(snapshot.held) > 1)
    return ", ".join(parts if snapshot.phase == "tokenize" else ["looking for duplicates", *parts])


def _num_left(out: Path) -> int:
    snapshot = Monitor(out).look()
    return snapshot.num_units - snapshot.num_units_done


def _interrupted(out: Path, joined: Joined | None) -> str:
    if joined is None:
        return "nothing was done yet; give the same command again."
    snapshot = Monitor(out, joined.job).look()
    done = f"{snapshot.num_units_done} of {snapshot.num_units} units are done and kept"
    return f"{done}; give the same command again to go on."
