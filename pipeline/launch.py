"""The ranks of a run: started on this machine, or joined where torchrun or srun started them."""

import argparse
import multiprocessing
import os
import pkgutil
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

from pipeline import devices, rendezvous
from pipeline.config.load import load
from pipeline.config.rules import ineffective_settings, slow_settings
from pipeline.config.schema import RunConfig
from pipeline.errors import ClusterError, ConfigError, Interrupted, UserError
from pipeline.started_rank import PARENT, Failure, rank_main

# Importing torch, DeepSpeed and megatron-core costs seconds of a core: on a CPU the ranks are forked from one process
# that has done it. A process that has touched CUDA must not fork.
PRELOAD = ["pipeline.preload"]
TRAIN = "pipeline.train:train"
MEET = "pipeline.distributed:meet"
STOP_GRACE_SECONDS = 8.0
FAILURES_MEET_SECONDS = 2.0


@dataclass
class _Started:
    """One started rank, seen from the launcher."""

    rank: int
    process: Any
    connection: Connection
    finished: bool = False
    result: Any = None
    failure: Failure | None = None


def command(args: argparse.Namespace) -> int:
    """`pretrain train RUN.yaml [a.b=c ...]`."""
    config = _load(args)
    for remark in (*ineffective_settings(config), *slow_settings(config)):
        print(f"warning: {remark}", file=sys.stderr)
    train(config)
    return 0


def _load(args: argparse.Namespace) -> RunConfig:
    """The run config. Where ranks were started on several machines, all of them learn what is wrong on one."""
    try:
        return load(args.config, args.overrides)
    except Exception as error:
        joined = rendezvous.joined_rank(os.environ)
        if joined is not None:
            os.environ.update(joined)
            with suppress(ClusterError):  # there is no place to meet
                pkgutil.resolve_name(MEET)(problem=str(error) or type(error).__name__)
        raise


def train(config: RunConfig) -> None:
    """Train on the ranks that torchrun or srun started, this process being one, or on new ones on this machine."""
    device = devices.resolve(config.run.device)
    config = config.model_copy(update={"run": config.run.model_copy(update={"device": device})})
    joined = rendezvous.joined_rank(os.environ)
    if joined is None:
        log_dir = Path(config.run.dir) / "log"
        run(TRAIN, config, world_size=config.parallel.world_size, log_dir=log_dir, device=device)
    else:
        os.environ.update(joined, DS_ACCELERATOR=device)
        pkgutil.resolve_name(TRAIN)(config)


def run(function: str, *args: Any, world_size: int, log_dir: Path, device: devices.Device = "cpu") -> list[Any]:
    """Call `function(*args)` on `world_size` new processes of this machine, which can find each other.

    What a rank prints goes to `log_dir/rank_00000.log`; what rank 0 logs is shown here, too.
    Ctrl-C or SIGTERM asks the ranks to stop cleanly and ends them after `STOP_GRACE_SECONDS`; a second one ends them
    at once.

    Args:
        function: `module:name`; it finds its place in the environment, as under torchrun.

    Returns:
        What each rank's call returned, in rank order.

    Raises:
        UserError: a rank found the input wrong.
        ClusterError: a rank failed; the message begins with the traceback of the one that failed first.
        Interrupted: the ranks were asked to stop and did so after a complete save.
        KeyboardInterrupt: they were asked to stop and did not in time.
    """
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"run.dir={log_dir.parent} cannot be made: {error.strerror}. Choose a folder that can be written to."
        ) from error
    meeting_place = Path(tempfile.mkdtemp(prefix="pretrain_"))
    context = _context(device)
    ranks: list[_Started] = []
    try:
        with _sigterm_as_ctrl_c():
            for rank in range(world_size):
                environment = rendezvous.started_rank(rank, world_size, meeting_place)
                ours, theirs = context.Pipe()
                log_file = log_dir / f"rank_{rank:05d}.log"
                process = context.Process(target=rank_main, args=(function, args, environment, theirs, log_file))
                process.start()
                theirs.close()
                ranks.append(_Started(rank=rank, process=process, connection=ours))
            _supervise(ranks)
    finally:
        for started in ranks:
            started.process.kill()
            started.process.join()
        shutil.rmtree(meeting_place, ignore_errors=True)
    return [started.result for started in ranks]


def _context(device: devices.Device) -> Any:
    """How processes are made: forked from one that has imported everything, or afresh, as CUDA forbids forks."""
    os.environ["DS_ACCELERATOR"] = device  # DeepSpeed would take a GPU that it sees
    os.environ[PARENT] = str(os.getpid())
    if device == "cuda":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with _ctrl_c_withheld():
        forkserver.ensure_running()
    return context


@contextmanager
def _ctrl_c_withheld() -> Iterator[None]:
    """A process started inside never hears Ctrl-C, nor do those that it forks: the launcher does, after the block."""
    resource_tracker.ensure_running()  # to start it inside would let Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _supervise(ranks: list[_Started]) -> None:
    """Return when every rank has returned; raise when one has failed or the user wants an end."""
    deadline = None
    while not all(started.finished for started in ranks):
        try:
            _receive(ranks)
            if any(started.failure and not started.failure.interrupted for started in ranks):
                _collect_failures(ranks)
                break
            if deadline and time.monotonic() > deadline:
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            if deadline:
                raise
            deadline = time.monotonic() + STOP_GRACE_SECONDS
            print("stopping: saving first; press Ctrl-C again to end at once", file=sys.stderr, flush=True)
            for started in ranks:
                started.process.terminate()
    if deadline and any(started.process.exitcode == -signal.SIGTERM for started in ranks):
        raise KeyboardInterrupt  # it was asked before it could listen
    failures = sorted((f for f in (started.failure for started in ranks) if f), key=lambda failure: failure.time)
    if failures:
        _raise(failures[0])


def _collect_failures(ranks: list[_Started]) -> None:
    """Wait a moment for the others: the rank that failed first may not be the one that was heard first."""
    until = time.monotonic() + FAILURES_MEET_SECONDS
    while time.monotonic() < until and not all(started.finished for started in ranks):
        _receive(ranks)


def _raise(failure: Failure) -> NoReturn:
    if failure.interrupted:
        raise Interrupted(failure.message)
    if failure.traceback is None:
        raise UserError(failure.message)
    raise ClusterError(f"{failure.traceback}{failure.message}")


def _receive(ranks: list[_Started]) -> None:
    """Take in what ranks have sent, within a moment."""
    running = {started.connection: started for started in ranks if not started.finished}
    for connection in wait(list(running), timeout=0.2):
        started = running[connection]  # type: ignore[index]
        try:
            kind, value = started.connection.recv()
        except (EOFError, OSError):
            started.finished = True
            started.failure = _silent_death(started)
            continue
        if kind == "print":
            print(value, end="", file=sys.stderr, flush=True)
        else:
            started.finished = True
            if kind == "done":
                started.result = value
            else:
                started.failure = value


def _silent_death(started: _Started) -> Failure:
    started.process.join(FAILURES_MEET_SECONDS)
    code = started.process.exitcode
    how = f"was ended by {signal.Signals(-code).name}" if code and code < 0 else f"exited with code {code}"
    hint = "; the kernel does this when memory runs out" if code == -signal.SIGKILL else ""
    # Before all others: their errors follow from a rank that is gone.
    return Failure(0.0, f"rank {started.rank} {how} without a word{hint}. Its log is in log/.", traceback="")
