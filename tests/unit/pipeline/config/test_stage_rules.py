"""What is said of stages that a model cannot be cut into."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.load import build
from pipeline.errors import ConfigError
from pipeline.stages import stage_bounds
from tests.unit.pipeline.config.sections import sections

T5 = {"model.architecture": "t5", "objective.name": "span", "model.num_layers": 2, "model.num_decoder_layers": 3}


def problems(changes: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        build(sections(changes), check_data=False)
    return caught.value.problems


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model.num_layers": 3, "parallel.pipeline_parallel_size": 4},
            "parallel.pipeline_parallel_size=4 is wrong because the model has 3 Transformer layers, and no more stages "
            "than these are cut by cost; set parallel.pipeline_parallel_size=3, or model.num_layers=4.",
        ),
        (
            {**T5, "parallel.pipeline_parallel_size": 7},
            "parallel.pipeline_parallel_size=7 is wrong because the model has 5 Transformer layers, and no more stages "
            "than these are cut by cost; set parallel.pipeline_parallel_size=5, or model.num_layers=4.",
        ),
        (
            {"parallel.stage_layers": [4, 3], "parallel.pipeline_parallel_size": 1},
            "parallel.stage_layers=[4, 3] is wrong because it has a number for 2 stages, and "
            "parallel.pipeline_parallel_size=1; give a number for each stage, or leave it out.",
        ),
        (
            {"parallel.stage_layers": [7], "parallel.pipeline_parallel_size": 2},
            "parallel.stage_layers=[7] is wrong because it has a number for 1 stage, and "
            "parallel.pipeline_parallel_size=2; give a number for each stage, or leave it out.",
        ),
        (
            {"parallel.stage_layers": [2, 2], "parallel.pipeline_parallel_size": 2},
            "parallel.stage_layers=[2, 2] is wrong because its sum is 4, and the model has 7 pipeline layers (its "
            "Transformer layers, embeddings, norms and head); give numbers with this sum, or leave it out.",
        ),
        (
            {**T5, "parallel.stage_layers": [5, 4], "parallel.pipeline_parallel_size": 2},
            "parallel.stage_layers=[5, 4] is wrong because its sum is 9, and the model has 10 pipeline layers (its "
            "Transformer layers, embeddings, norms and head); give numbers with this sum, or leave it out.",
        ),
        (
            {"parallel.stage_layers": [7, 0], "parallel.pipeline_parallel_size": 2},
            "parallel.stage_layers.1=0 is wrong because it must be 1 or more; set it to 1 or more.",
        ),
    ],
)
def test_each_mistake_has_one_message(changes: dict[str, Any], expected: str) -> None:
    assert problems(changes) == (expected,)


def test_wrong_length_and_wrong_sum_are_both_told() -> None:
    found = problems({"parallel.stage_layers": [1, 1, 1], "parallel.pipeline_parallel_size": 2})
    assert len(found) == 2


@pytest.mark.parametrize("given_layers", [[], "3", 4, [1.5, 5.5], [True, 6], None])
def test_what_is_no_list_of_counts_is_refused_or_means_by_cost(given_layers: Any) -> None:
    changes = {"parallel.stage_layers": given_layers, "parallel.pipeline_parallel_size": 2}
    if given_layers is None:
        assert len(stage_bounds(build(sections(changes), check_data=False))) == 3
    else:
        assert all("parallel.stage_layers" in problem for problem in problems(changes))


@given(stage_layers=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_any_cut_with_the_right_sum_is_obeyed(stage_layers: list[int]) -> None:
    total = sum(stage_layers)
    if total < 4:
        return
    changes = {
        "model.num_layers": total - 3,
        "parallel.stage_layers": stage_layers,
        "parallel.pipeline_parallel_size": len(stage_layers),
    }
    bounds = stage_bounds(build(sections(changes), check_data=False))
    assert [end - start for start, end in pairwise(bounds)] == stage_layers
