"""Small real runs for the tests that start ranks: their config, how they are started, and what the ranks run."""

import faulthandler
import os
import pkgutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from pipeline import launch, train
from pipeline.config.load import build
from pipeline.config.schema import RunConfig
from pipeline.engine.engine import Engine
from pipeline.errors import ClusterError
from pipeline.models import norms
from pipeline.monitor.metrics import read_metrics

STEPS = 20
HANG_SECONDS = 100
LOG_CHARACTERS = 4000
CALL = "tests.distributed.runs:call"
Layout = tuple[int, int, int, int]
"""(tensor, pipeline, data, ZeRO stage)"""
Weights = dict[str, np.ndarray]
"""Logical name -> a rank's slice, as fp32. (A torch tensor would be shared with its process, which has ended.)"""


def run_config(data: Path, run_dir: Path, layout: Layout, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """A run of 20 steps of a small model on `data`, which `tests.small_models.make_data` made.

    The learning rate is one at which differences of rounding do not grow.
    """
    tensor, pipeline, data_size, zero_stage = layout
    sections: dict[str, dict[str, Any]] = {
        "run": {"dir": str(run_dir), "steps": STEPS, "device": "cpu"},
        "model": {
            "num_layers": 4,
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "ffn_hidden_size": 96,
            "seq_len": 32,
        },
        "data": {"train": str(data / "train")},
        "parallel": {
            "tensor_parallel_size": tensor,
            "pipeline_parallel_size": pipeline,
            "data_parallel_size": data_size,
            "zero_stage": zero_stage,
        },
        "batch": {"micro_batch_size": 2, "global_batch_size": 8},
        "optimizer": {"lr": 1e-4},
        "schedule": {"decay": "constant"},
        "precision": {"dtype": "fp32"},
        "monitor": {"tensorboard": False, "check_replicas_every_steps": 5},
    }
    for key, value in (overrides or {}).items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    return build(sections)


def start(function: Callable[..., Any], config: RunConfig, *args: Any) -> list[Any]:
    """What `function(config, *args)` returns on each rank of the layout of `config`.

    Ranks that hang show their stacks and end, before the test does.
    """
    log_dir = Path(config.run.dir) / "log"
    name = f"{function.__module__}:{function.__qualname__}"
    try:
        return launch.run(CALL, name, config, *args, world_size=config.parallel.world_size, log_dir=log_dir)
    except ClusterError:
        for log in sorted(log_dir.iterdir()):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-LOG_CHARACTERS:]}", file=sys.stderr)
        raise


def call(name: str, config: RunConfig, *args: Any) -> Any:
    """What a started rank does first of all."""
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    # Small products gain nothing from a second thread, which waits in a loop: beside other work a run took 19 times as
    # long.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    return pkgutil.resolve_name(name)(config, *args)


def figures(config: RunConfig, name: str = "train/loss") -> list[float]:
    """One figure of each step in `metrics.jsonl`, in the order written."""
    return [record[name] for record in read_metrics(Path(config.run.dir))]


@contextmanager
def engine_kept() -> Iterator[list[Engine]]:
    """The engine of the run that is trained in the block, once it is built."""
    engines: list[Engine] = []

    def build_and_keep(*args: Any, **kwargs: Any) -> Engine:
        engines.append(build_engine(*args, **kwargs))
        return engines[0]

    build_engine = train.build
    with mock.patch.object(train, "build", build_and_keep):
        yield engines


def train_without_summing_norm_gradients(config: RunConfig) -> None:
    """Train as DeepSpeed alone would under sequence parallelism."""
    with mock.patch.object(norms, "shared_by_slices", lambda parameter, **_: parameter):
        train.train(config)


def train_in(config: RunConfig, folders: list[Path]) -> None:
    """Train, each rank in a folder of its own, from which paths count: as on machines with disks of their own."""
    os.chdir(folders[int(os.environ["RANK"])])
    train.train(config)


def train_and_stop(config: RunConfig, step: int) -> None:
    """Train, with the last rank being asked to stop during `step`."""

    def ask() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with _at(step, rank=config.parallel.world_size - 1, act=ask):
        train.train(config)


def train_and_fail(config: RunConfig, step: int, rank: int) -> None:
    """Train, with `rank` failing at the start of `step`."""

    def fail() -> None:
        raise ZeroDivisionError("on purpose")

    with _at(step, rank=rank, act=fail):
        train.train(config)


@contextmanager
def _at(step: int, *, rank: int, act: Callable[[], None]) -> Iterator[None]:
    """Act on one rank at the start of one step, where training asks for the learning rate."""

    def act_and_answer(config: RunConfig, current: int) -> float:
        if current == step and int(os.environ["RANK"]) == rank:
            act()
        return learning_rate(config, current)

    learning_rate = train.learning_rate
    with mock.patch.object(train, "learning_rate", act_and_answer):
        yield
