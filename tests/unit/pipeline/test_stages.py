"""The cut of a list of layers into stages is the best there is."""

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import RunConfig
from pipeline.flops import layer_flops
from pipeline.stages import balanced, stage_bounds
from tests.small_models import run_config


def sums(costs: list[int], bounds: list[int]) -> list[int]:
    return [sum(costs[start:end]) for start, end in pairwise(bounds)]


def quality(costs: list[int], bounds: list[int]) -> tuple[int, int]:
    stages = sums(costs, bounds)
    return max(stages), sum(stage**2 for stage in stages)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.data())
def test_no_cut_is_better(costs: list[int], data: st.DataObject) -> None:
    num_stages = data.draw(st.integers(1, len(costs)))
    found = balanced(costs, num_stages)
    assert (found[0], found[-1], len(found)) == (0, len(costs), num_stages + 1)
    assert all(start < end for start, end in pairwise(found))
    cuts = combinations(range(1, len(costs)), num_stages - 1)
    assert quality(costs, found) == min(quality(costs, [0, *cut, len(costs)]) for cut in cuts)


def with_parallel(config: RunConfig, **parallel: object) -> RunConfig:
    return config.model_copy(update={"parallel": config.parallel.model_copy(update=parallel)})


def test_a_heavy_head_gets_fewer_layers_beside_it() -> None:
    config = with_parallel(run_config(num_layers=8, vocab_size=1500), pipeline_parallel_size=2)
    start, middle, end = stage_bounds(config)
    costs = [layer.flops for layer in layer_flops(config)]
    assert middle - start > end - middle
    assert max(sums(costs, [start, middle, end])) < 0.6 * sum(costs)


def test_stages_are_cut_where_asked() -> None:
    config = with_parallel(run_config(num_layers=2), pipeline_parallel_size=3, stage_layers=(1, 3, 1))
    assert stage_bounds(config) == [0, 1, 4, 5]
