"""What an encoder-decoder's two sequences must agree on, and that what is offered instead is accepted."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.load import build
from pipeline.config.sample import denoising
from pipeline.errors import ConfigError
from tests.unit.pipeline.config.sections import sections

T5: dict[str, Any] = {
    "model.architecture": "t5",
    "objective.name": "span",
    "parallel.tensor_parallel_size": 4,
    "parallel.sequence_parallel": True,
}


def told(changes: dict[str, Any]) -> str | None:
    """What is wrong with a config; None if nothing is."""
    try:
        build(sections(T5 | changes), check_data=False)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model.seq_len": 64}, "objective.target_len=null (which makes the decoder's length 14)"),
        ({"model.seq_len": 64}, "set objective.target_len=12 or 16, or parallel.sequence_parallel=false"),
        ({"model.seq_len": 512, "objective.target_len": 114}, "set objective.target_len=112 or 116, or"),
        ({"model.seq_len": 64, "objective.target_len": 3}, "set objective.target_len=4, or"),
    ],
)
def test_a_decoder_that_does_not_split_is_refused(changes: dict[str, Any], expected: str) -> None:
    found = told(changes)
    assert found is not None
    assert expected in found


@pytest.mark.parametrize(
    "changes",
    [
        {"objective.target_len": 16},
        {"parallel.sequence_parallel": False},
        {"parallel.tensor_parallel_size": 2},  # 14 positions
        {"model.architecture": "llama", "objective.name": "causal"},  # no decoder beside an encoder
    ],
    ids=str,
)
def test_what_splits_is_accepted(changes: dict[str, Any]) -> None:
    assert told({"model.seq_len": 64} | changes) is None


@given(
    st.integers(4, 60).map(lambda count: 4 * count),
    st.none() | st.integers(3, 80),
    st.sampled_from(["span", "prefix", "ul2"]),
)
def test_every_length_that_is_offered_is_accepted(seq_len: int, target_len: int | None, denoiser: str) -> None:
    changes = {"model.seq_len": seq_len, "objective.target_len": target_len, "objective.denoiser": denoiser}
    found = told(changes)
    if found is None:
        config = build(sections(T5 | changes), check_data=False)
        assert denoising(config).target_len % 4 == 0
        return
    [offers] = re.findall(r"set objective\.target_len=([\d or]+),", found)
    lengths = [int(length) for length in offers.split(" or ")]
    assert lengths
    assert all(told(changes | {"objective.target_len": length}) is None for length in lengths)


def test_far_classes_of_distance_must_begin_behind_the_near_ones() -> None:
    found = told({"objective.target_len": 16, "model.num_relative_buckets": 256})
    assert found is not None
    assert "set model.max_relative_distance=129, or model.num_relative_buckets=255." in found
    for changes in ({"model.max_relative_distance": 129}, {"model.num_relative_buckets": 255}):
        assert told({"objective.target_len": 16, "model.num_relative_buckets": 256} | changes) is None
