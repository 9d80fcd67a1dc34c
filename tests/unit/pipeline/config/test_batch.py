"""The batch size that grows: a function of the samples used, and its sum over steps."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.batch import BatchRamp
from pipeline.config.load import build
from pipeline.errors import ConfigError
from tests.unit.pipeline.config.sections import sections

RAMP = {"batch.ramp_up_start": 2, "batch.ramp_up_increment": 2, "batch.ramp_up_samples": 60}

ramps = st.builds(
    lambda start, increment, number, samples: BatchRamp(
        final=start + increment * number, start=start, increment=increment, samples=samples
    ),
    start=st.integers(1, 30),
    increment=st.integers(1, 9),
    number=st.integers(1, 12),
    samples=st.integers(1, 1000),
)
positions = st.integers(0, 1200)


@given(ramps, positions)
def test_it_grows_in_equal_stretches_from_start_to_final(ramp: BatchRamp, position: int) -> None:
    if position >= ramp.samples:
        assert ramp.size_at(position) == ramp.final
        return
    stretch_length = ramp.samples / ramp.num_increments
    size = ramp.size_at(position)
    assert ramp.size_at(0) == ramp.start
    assert ramp.start <= size < ramp.final
    number = (size - ramp.start) // ramp.increment
    assert ramp.start + number * ramp.increment == size
    assert number * stretch_length <= position + 1e-6
    assert position < (number + 1) * stretch_length + 1e-6
    assert ramp.size_at(position + 1) >= size


@given(ramps, positions, st.integers(0, 150))
def test_samples_of_many_steps_are_the_sum_of_single_ones(ramp: BatchRamp, position: int, num_steps: int) -> None:
    reached = position
    for _ in range(num_steps):
        reached += ramp.size_at(reached)
    assert ramp.after(position, num_steps) == reached


@given(ramps, st.integers(0, 100), st.integers(0, 100))
def test_a_run_that_is_cut_in_two_uses_the_same_samples(ramp: BatchRamp, first: int, second: int) -> None:
    assert ramp.after(ramp.after(0, first), second) == ramp.after(0, first + second)


def test_known_sizes() -> None:
    """Megatron-LM's `--rampup-batch-size 2 2 60` to 8: three stretches of 20 samples."""
    ramp = BatchRamp(final=8, start=2, increment=2, samples=60)
    sizes = [ramp.size_at(position) for position in (0, 19, 20, 39, 40, 59, 60, 10**9)]
    assert sizes == [2, 2, 4, 4, 6, 6, 8, 8]
    assert list(itertools.accumulate(range(19), lambda used, _: used + ramp.size_at(used), initial=0))[10] == 20


def test_a_trillion_samples_are_summed_at_once() -> None:
    ramp = BatchRamp(final=4096, start=32, increment=32, samples=10**6)
    assert ramp.after(0, 10**12) == ramp.after(0, 10**5) + (10**12 - 10**5) * 4096


def test_what_follows_from_the_run_counts_the_ramp_up() -> None:
    phases = [{"from_step": 12, "weights": {"data/train": 1.0}}, {"from_sample": 61, "weights": {"data/train": 2.0}}]
    config = build(sections({**RAMP, "data.phases": phases}), check_data=False)
    assert config.phase_starts == [24, 61]  # 10 steps of 2 samples, one of 4
    assert config.num_samples == 20 + 5 * 4 + 4 * 6 + 8
    assert build(sections(), check_data=False).num_samples == 20 * 8


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch.ramp_up_increment": None}, "batch.ramp_up_increment is missing, which a batch size that grows needs"),
        (
            {"batch.ramp_up_increment": None, "batch.ramp_up_start": None},
            "batch.ramp_up_start and batch.ramp_up_increment are missing",
        ),
        ({"batch.ramp_up_start": 3}, "set batch.ramp_up_start=2 or 4"),
        ({"batch.ramp_up_start": 8}, "set batch.ramp_up_start=6, or batch.global_batch_size=10"),
        ({"batch.ramp_up_start": 10}, "set batch.ramp_up_start=6, or batch.global_batch_size=12"),
        ({"batch.ramp_up_increment": 4}, "set batch.ramp_up_increment=2 or 6, or batch.ramp_up_start=4"),
        ({"batch.ramp_up_increment": 1}, "set batch.ramp_up_increment=2"),
        ({"batch.ramp_up_samples": 0}, "batch.ramp_up_samples=0 is wrong because it must be 1 or more"),
        ({"parallel.data_parallel_size": 2}, "batch.ramp_up_start=2 is wrong because it must be a multiple of"),
    ],
)
def test_each_rule_names_the_way_out(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(sections({**RAMP, **changes}), check_data=False)
    assert expected in str(caught.value)
