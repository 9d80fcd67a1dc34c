"""Where the list of pipeline layers is cut into stages."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from pipeline.config.schema import RunConfig
from pipeline.flops import layer_flops


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: its layers, in words, and its share of what a sample costs."""

    layers: str
    share: float


def stage_bounds(config: RunConfig) -> list[int]:
    """The index of the first layer of each stage, and the number of layers last: as asked for, else by cost."""
    asked = config.parallel.stage_layers
    if asked is None:
        return balanced([layer.flops for layer in layer_flops(config)], config.parallel.pipeline_parallel_size)
    return [sum(asked[:stage]) for stage in range(len(asked) + 1)]


def stages(config: RunConfig) -> list[Stage]:
    """What each stage of a run holds."""
    layers = layer_flops(config)
    total = sum(layer.flops for layer in layers)
    return [
        Stage(
            layers=in_words([layer.name for layer in layers[start:end]]),
            share=sum(layer.flops for layer in layers[start:end]) / total,
        )
        for start, end in pairwise(stage_bounds(config))
    ]


def in_words(names: Sequence[str]) -> str:
    """Layers one after the other, those of a numbered kind as a range: `embedding, layers.0-5`."""
    words = []
    for kind, group in groupby(names, key=lambda name: re.sub(r"\d+$", "", name)):
        first, *others = (name.removeprefix(kind) for name in group)
        words.append(f"{kind}{first}-{others[-1]}" if others else f"{kind}{first}")
    return ", ".join(words)


def balanced(costs: Sequence[int], num_stages: int) -> list[int]:
    """The bounds of `num_stages` runs of `costs`, none of them empty, whose dearest run is as cheap as it can be.

    Of several such cuts it is one with the least sum of squares, so that the others are even, too; of several of these,
    the one whose last stages are the longest.
    """
    assert 1 <= num_stages <= len(costs)
    # Sizes of layers have large factors in common; without these, squares are whole numbers that floats can hold.
    divisor = math.gcd(*costs) or 1
    totals = np.cumsum([0, *(cost // divisor for cost in costs)], dtype=np.float64)
    # run_cost[start, end]: of the layers from `start` to before `end`, of which there must be one.
    run_cost = np.where(np.tri(len(totals), dtype=np.bool_), np.inf, totals - totals[:, None])
    dearest = run_cost[0]
    for _ in range(1, num_stages):
        dearest = np.maximum(dearest[:, None], run_cost).min(axis=0)
    squares = np.where(run_cost <= dearest[-1], run_cost, np.inf) ** 2
    least, starts = squares[0], []
    for _ in range(1, num_stages):
        sums = least[:, None] + squares
        starts.append(sums.argmin(axis=0))
        least = sums.min(axis=0)
    bounds = [len(costs)]
    for start_of in reversed(starts):
        bounds.append(int(start_of[bounds[-1]]))
    return [0, *bounds[::-1]]
