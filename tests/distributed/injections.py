"""What ranks run where a test wants something to go wrong in one of them."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import torch

from pipeline import train
from pipeline.config.schema import RunConfig
from pipeline.engine.engine import Engine
from pipeline.engine.replicas import BITS, own_part, refuse_drift
from pipeline.models.losses import TokenLoss
from pipeline.models.parameters import ParameterTable
from tests.distributed import runs


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong on one rank.

    Attributes:
        where: the name, as the engine's model has it, of a module; with `kind` weight, of a parameter.
        kind: a number of the module's output becomes `value`, in training or in evaluation; or the gradient of that; or
            one of a weight, and stays so; or the loss is larger by `value`, which its gradient does not tell.
        times: which of the steps that are run it happens in, counted from 1; one that is run again counts again.
    """

    rank: int
    where: str = ""
    kind: Literal["output", "validation", "gradient", "weight", "loss"] = "output"
    value: float = math.nan
    times: tuple[int, ...] = (3,)


def train_with(config: RunConfig, *faults: Fault) -> list[str]:
    """Train; the digests of this rank's weights, master weights and moments at the start of each step that is run."""
    seen: list[str] = []
    mine = [fault for fault in faults if fault.rank == int(os.environ["RANK"])]

    def observe(_step: int, engine: Engine) -> None:
        seen.append(_digest(engine))
        for fault in mine:
            if len(seen) == fault.times[0]:
                _inject(engine, fault, time=lambda: len(seen))

    with each_step(observe):
        train.train(config)
    return seen


def train_with_perturbed(config: RunConfig, step: int, rank: int, name: str, of_master: bool = False) -> None:
    """Train, with one weight on `rank` changed by a unit in the last place before the check after `step`.

    Args:
        name: as the engine's model has it.
        of_master: change what this rank holds of the fp32 master weight, not what the model computes with.
    """

    def perturb_and_check(engine: Engine, table: ParameterTable, current: int) -> None:
        if current == step and int(os.environ["RANK"]) == rank:
            parameter = engine.deepspeed.module.get_parameter(name)
            held = parameter._hp_mapping.hp_fragment if of_master else own_part(parameter)  # type: ignore[attr-defined]
            held.data.view(-1).view(BITS[held.element_size()])[0] += 1
        refuse_drift(engine, table, current)

    with mock.patch.object(train, "refuse_drift", perturb_and_check):
        train.train(config)


def repeat_second_step(config: RunConfig) -> list[list[float]]:
    """Train 3 steps, and run the second one's forward pass again before the third.

    Returns:
        The loss of each micro-batch of the second step, of its repetition, and of the third step; all of them empty on
        the ranks that compute none.
    """
    losses: list[list[float]] = [[], [], []]

    def observe(step: int, engine: Engine) -> None:
        if step == 3:
            engine.guarded_loss.observer = lambda loss: losses[1].append(float(loss))
            engine.repeat_forward()
        engine.guarded_loss.observer = {
            1: None,
            2: lambda loss: losses[0].append(float(loss)),
            3: lambda loss: losses[2].append(float(loss)),
        }[step]

    with each_step(observe):
        train.train(config)
    return losses


@contextmanager
def each_step(act: Callable[[int, Engine], None]) -> Iterator[None]:
    """Call `act(step, engine)` on each rank at the start of each step."""

    def act_and_answer(config: RunConfig, step: int) -> float:
        act(step, built[0])
        return learning_rate(config, step)

    learning_rate = train.learning_rate
    with runs.engine_kept() as built, mock.patch.object(train, "learning_rate", act_and_answer):
        yield


def _inject(engine: Engine, fault: Fault, *, time: Callable[[], int]) -> None:
    """From now on, do as `fault` says whenever `time()` is one of its times."""
    module = engine.deepspeed.module

    def spoil_output(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        if time() not in fault.times or module.training == (fault.kind == "validation"):
            return
        tensor = output[0] if isinstance(output, tuple) else output
        if fault.kind != "gradient":
            tensor.data.view(-1)[0] = fault.value
        elif tensor.requires_grad:
            tensor.register_hook(lambda gradient: gradient * fault.value)

    if fault.kind == "weight":
        poke(module.get_parameter(fault.where), fault.value)
    elif fault.kind == "loss":
        loss = engine.guarded_loss.loss
        engine.guarded_loss.loss = _Raised(loss, by=lambda: fault.value if time() in fault.times else 0.0)
    else:
        module.get_submodule(fault.where).register_forward_hook(spoil_output)


class _Raised(TokenLoss):
    """A loss that is larger than it should be."""

    def __init__(self, loss: TokenLoss, *, by: Callable[[], float]) -> None:
        self._loss, self._by = loss, by

    def __call__(self, outputs: Any, labels: Any) -> torch.Tensor:
        return self._loss(outputs, labels) + self._by()


@torch.no_grad()
def poke(parameter: torch.Tensor, value: float) -> None:
    """Put `value` in the first place of what this rank holds of a parameter."""
    for held in {id(tensor): tensor for tensor in (parameter, own_part(parameter))}.values():  # type: ignore[arg-type]
        if held.numel():
            held.data.view(-1)[0] = value


def _digest(engine: Engine) -> str:
    """Of all weights, their masters and the moments that this rank holds."""
    hasher = hashlib.sha256()
    for tensor in _state(engine):
        hasher.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def _state(engine: Engine) -> Iterator[torch.Tensor]:
    for parameter in engine.deepspeed.module.parameters():
        yield own_part(parameter)
    optimizer = getattr(engine.deepspeed.optimizer, "optimizer", engine.deepspeed.optimizer)
    for group in optimizer.param_groups:
        for held in group["params"]:
            yield held
            yield from (value for value in optimizer.state[held].values() if isinstance(value, torch.Tensor))
