"""A loss that is not finite spoils its gradients, and one that is leaves every bit of them."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.gradients import GradientGuard, GuardedLoss
from pipeline.models.losses import TokenLoss


class Sum(TokenLoss):
    """The sum of the outputs times the label: a loss whose gradient is the label, whatever it is itself."""

    def __call__(self, outputs: Any, labels: Any) -> torch.Tensor:
        return (outputs * labels).sum()


def gradient(outputs: list[float], label: float) -> torch.Tensor:
    leaf = torch.tensor(outputs, requires_grad=True)
    GuardedLoss(Sum())(leaf, label).backward()
    assert leaf.grad is not None
    return leaf.grad


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5), st.floats(-1e6, 1e6, width=32))
def test_a_finite_loss_leaves_its_gradient_as_it_is(outputs: list[float], label: float) -> None:
    assert torch.equal(gradient(outputs, label), torch.full((len(outputs),), label))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_not_finite_has_no_finite_gradient(value: float) -> None:
    assert gradient([1.0, value], 2.0).isnan().all()


def test_the_observer_sees_each_loss_and_no_gradient_is_asked_for_without_one() -> None:
    loss, seen = GuardedLoss(Sum()), []
    loss.observer = seen.append
    with torch.no_grad():
        loss(torch.tensor([1.0, 2.0]), 3.0)
    assert [float(value) for value in seen] == [9.0]


class Optimizer:
    """As much of DeepSpeed's fp16 optimizers as the guard looks at; they do not run on a CPU."""

    overflow = False

    def __init__(self) -> None:
        self.loss_scaler = DynamicLossScaler(
            init_scale=4.0,
            scale_window=1000,
            min_scale=1.0,
            delayed_shift=1,
            consecutive_hysteresis=False,
            dtype=torch.half,
        )

    def zero_grad(self) -> None:
        """Nothing is held."""


def test_overflows_are_the_loss_scalers_until_the_scale_is_at_its_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepspeed.comm.get_rank", lambda: 1)  # the first rank logs the overflow
    optimizer = Optimizer()
    guard = GradientGuard(SimpleNamespace(optimizer=optimizer, module=torch.nn.Module()))  # type: ignore[arg-type]
    answers = []
    for _ in range(4):
        answers.append(guard.start_step())
        optimizer.loss_scaler.update_scale(True)  # DeepSpeed would raise at the least scale
    assert answers == [True, True, False, False]
    optimizer.loss_scaler = Optimizer().loss_scaler  # what loading a checkpoint does
    assert guard.start_step()
