"""The learning rate over the steps."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.load import build
from pipeline.config.rules import ineffective_settings
from pipeline.config.schema import RunConfig
from pipeline.errors import ConfigError
from pipeline.optim.schedule import learning_rate
from tests.unit.pipeline.config.sections import sections

PEAK, FLOOR = 1e-3, 1e-5
COOLDOWNS = ("linear", "cosine", "sqrt")


def changes(steps: int, warmup: int, decay: str, **schedule: Any) -> dict[str, Any]:
    made = {"run.steps": steps, "optimizer.lr": PEAK, "schedule.warmup_steps": warmup, "schedule.decay": decay}
    if decay != "constant":
        made["schedule.min_lr"] = FLOOR
    if decay == "wsd":
        made["schedule.cooldown_steps"] = max(steps - warmup, 1)
    return made | {f"schedule.{name}": value for name, value in schedule.items()}


def config(steps: int, warmup: int, decay: str, **schedule: Any) -> RunConfig:
    return build(sections(changes(steps, warmup, decay, **schedule)), check_data=False)


lengths = st.integers(1, 200).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(0, steps)))
rooms = st.integers(2, 200).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(0, steps - 1)))
ending = st.sampled_from(["linear", "cosine"])
all_decays = st.sampled_from(["constant", "linear", "cosine", "inverse_sqrt"])
cooldowns = st.sampled_from(COOLDOWNS)


@given(lengths, all_decays)
def test_it_rises_to_the_peak_and_never_again(length: tuple[int, int], decay: str) -> None:
    steps, warmup = length
    rises_then_falls(config(steps, warmup, decay), steps, warmup)


@given(rooms, cooldowns)
def test_so_does_warmup_stable_decay(length: tuple[int, int], cooldown: str) -> None:
    steps, warmup = length
    rises_then_falls(config(steps, warmup, "wsd", cooldown=cooldown), steps, warmup)


def rises_then_falls(settings: RunConfig, steps: int, warmup: int) -> None:
    rates = [learning_rate(settings, step) for step in range(1, 2 * steps + 1)]
    assert all(0 < rate <= PEAK * (1 + 1e-12) for rate in rates)
    rising, falling = rates[:warmup], rates[warmup:]
    assert all(rising[index] == pytest.approx(PEAK * (index + 1) / warmup) for index in range(warmup))
    assert all(later <= earlier for earlier, later in itertools.pairwise(falling))


@given(lengths, ending)
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


@given(lengths, st.integers(1, 10**6))
def test_inverse_square_root_is_its_formula(length: tuple[int, int], step: int) -> None:
    """Vaswani et al., section 5.3, with the factor that has the peak at the end of warm-up."""
    steps, warmup = length
    settings = config(steps, warmup, "inverse_sqrt")
    if warmup:
        formula = PEAK * math.sqrt(warmup) * min(step**-0.5, step * warmup**-1.5)
    else:
        formula = PEAK * step**-0.5
    expected = formula if step <= warmup else max(formula, FLOOR)
    assert learning_rate(settings, step) == pytest.approx(expected)


@given(rooms, st.data(), cooldowns)
def test_warmup_stable_decay_is_its_formula(length: tuple[int, int], data: st.DataObject, cooldown: str) -> None:
    steps, warmup = length
    last = data.draw(st.integers(1, steps - warmup))
    settings = config(steps, warmup, "wsd", cooldown_steps=last, cooldown=cooldown)
    step = data.draw(st.integers(warmup + 1, steps + 5))
    done = (step - 1 - (steps - last)) / last
    if done <= 0:
        expected = PEAK
    elif done >= 1:
        expected = FLOOR
    else:
        left = {"linear": 1 - done, "cosine": 0.5 + 0.5 * math.cos(math.pi * done), "sqrt": 1 - done**0.5}[cooldown]
        expected = FLOOR + (PEAK - FLOOR) * left
    assert learning_rate(settings, step) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("decay", "schedule"),
    [("linear", {}), ("cosine", {}), ("inverse_sqrt", {})]
    + [("wsd", {"cooldown": shape, "cooldown_steps": 500}) for shape in ("linear", "cosine")],
)
def test_joints_are_continuous(decay: str, schedule: dict[str, Any]) -> None:
    """No step changes the rate by more than the steepest of these curves: the inverse root where it begins."""
    settings = config(2000, 100, decay, **schedule)
    rates = [learning_rate(settings, step) for step in range(100, 2200)]
    assert max(abs(later - earlier) for earlier, later in itertools.pairwise(rates)) <= PEAK / 2 / 100
    assert rates[0] == pytest.approx(rates[1], rel=0.01)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (changes(100, 10, "wsd", cooldown_steps=None), "schedule.cooldown_steps is missing: with schedule.decay=wsd"),
        (changes(100, 10, "wsd", cooldown_steps=None), "before step 100; a tenth of them are 10. Set it."),
        (changes(100, 10, "wsd", cooldown_steps=91), "to step 100, where the decay ends, there are 90 steps"),
        (changes(100, 10, "wsd", cooldown_steps=50, decay_steps=40), "there are 30 steps"),
        (changes(100, 10, "wsd", cooldown="root"), "only linear, cosine or sqrt can be used"),
    ],
)
def test_wrong_schedules_are_refused(made: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(sections(made), check_data=False)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("decay", "schedule", "idle"),
    [
        ("constant", {"min_lr": FLOOR, "decay_steps": 50}, ["min_lr", "decay_steps"]),
        ("inverse_sqrt", {"decay_steps": 50}, ["decay_steps"]),
        ("cosine", {"cooldown_steps": 5, "cooldown": "sqrt"}, ["cooldown_steps", "cooldown"]),
        ("wsd", {"decay_steps": 90, "cooldown": "sqrt", "cooldown_steps": 20}, []),
    ],
)
def test_keys_without_effect_are_named(decay: str, schedule: dict[str, Any], idle: list[str]) -> None:
    found = ineffective_settings(config(100, 10, decay, **schedule))
    assert [sentence.split("=")[0] for sentence in found] == [f"schedule.{name}" for name in idle]
