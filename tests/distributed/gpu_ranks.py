"""What one rank runs for the tests of a GPU."""

import faulthandler
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from pipeline import train
from pipeline.config.schema import RunConfig
from pipeline.engine.engine import Engine, StepResult

HANG_SECONDS = 600  # FlexAttention's kernels are compiled first
PROFILED_STEP = 3  # the first ones choose and compile kernels


def train_and_name_kernels(config: RunConfig) -> list[str]:
    """Train; the names of all kernels that one step ran on the GPU, none on a CPU."""
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    numbers, names = iter(range(1, config.run.steps + 1)), set[str]()
    train_step = Engine.train_step

    def step(engine: Engine, *args: Any, **kwargs: Any) -> StepResult:
        if next(numbers) != PROFILED_STEP:
            return train_step(engine, *args, **kwargs)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if engine.device.type == "cuda" else [])]
        with profile(activities=activities) as profiled:
            result = train_step(engine, *args, **kwargs)
        names.update(_kernels(profiled))
        return result

    with mock.patch.object(Engine, "train_step", step):
        train.train(config)
    return sorted(names)


def _kernels(profiled: profile) -> Iterator[str]:
    for event in profiled.events() or ():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            yield event.name
