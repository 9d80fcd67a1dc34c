"""The learning rate over the steps."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.load import build
from pipeline.config.schema import RunConfig
from pipeline.optim.schedule import learning_rate
from tests.unit.pipeline.config.sections import sections

PEAK, FLOOR = 1e-3, 1e-5


def config(steps: int, warmup: int, decay: str, **schedule: Any) -> RunConfig:
    changes = {"run.steps": steps, "optimizer.lr": PEAK, "schedule.warmup_steps": warmup, "schedule.decay": decay}
    if decay != "constant":
        changes["schedule.min_lr"] = FLOOR
    changes |= {f"schedule.{name}": value for name, value in schedule.items()}
    return build(sections(changes), check_data=False)


lengths = st.integers(1, 200).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(0, steps)))
decays = st.sampled_from(["constant", "linear", "cosine"])


@given(lengths, decays)
def test_it_rises_to_the_peak_and_never_again(length: tuple[int, int], decay: str) -> None:
    steps, warmup = length
    settings = config(steps, warmup, decay)
    rates = [learning_rate(settings, step) for step in range(1, steps + 1)]
    assert all(0 < rate <= PEAK for rate in rates)
    rising, falling = rates[:warmup], rates[warmup:]
    assert all(rising[index] == pytest.approx(PEAK * (index + 1) / warmup) for index in range(warmup))
    assert all(later <= earlier for earlier, later in itertools.pairwise(falling))


@given(lengths, st.sampled_from(["linear", "cosine"]))
def test_it_comes_near_the_floor_and_stays_there(length: tuple[int, int], decay: str) -> None:
    steps, warmup = length
    settings = config(steps, warmup, decay)
    if warmup < steps:
        assert learning_rate(settings, steps) > FLOOR
    assert learning_rate(settings, steps + 1) == learning_rate(settings, 10 * steps + 7) == pytest.approx(FLOOR)


@given(lengths)
def test_constant_stays_at_the_peak(length: tuple[int, int]) -> None:
    steps, warmup = length
    assert learning_rate(config(steps, warmup, "constant"), warmup + 1) == PEAK
    assert learning_rate(config(steps, warmup, "constant"), 100 * steps) == PEAK


@pytest.mark.parametrize(("decay", "expected"), [("linear", 0.25), ("cosine", 0.1464466)])
def test_known_points(decay: str, expected: float) -> None:
    settings = config(300, 20, decay, decay_steps=100)
    assert learning_rate(settings, 61) == pytest.approx((PEAK + FLOOR) / 2)
    assert learning_rate(settings, 81) == pytest.approx(FLOOR + (PEAK - FLOOR) * expected)
    assert learning_rate(settings, 101) == pytest.approx(FLOOR)
