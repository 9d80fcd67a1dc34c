"""Recomputation in real runs: no figure changes, whatever the layout."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import pytest

from pipeline import train
from pipeline.config.schema import RunConfig
from pipeline.models.attention import SdpaCoreAttention
from pipeline.models.execution import Recompute
from tests.distributed import runs
from tests.distributed.runs import Layout

STEPS = 3
DROPOUT = {"model.hidden_dropout": 0.1, "model.attention_dropout": 0.1}


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    layout: Layout
    overrides: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    Case(name="unsplit", layout=(1, 1, 1, 0), overrides=DROPOUT),
    Case(name="unsplit_without_dropout", layout=(1, 1, 1, 0)),
    Case(
        name="tp2_sequence_parallel",
        layout=(2, 1, 1, 0),
        overrides={**DROPOUT, "parallel.sequence_parallel": True},
    ),
    Case(name="tp2_without_dropout", layout=(2, 1, 1, 0)),
    Case(name="pp2_zero1", layout=(1, 2, 1, 1), overrides=DROPOUT),
    Case(
        name="pp2_zero1_bf16_documents",
        layout=(1, 2, 1, 1),
        overrides={"precision.dtype": "bf16", "data.attend_within_documents": True, "data.reset_positions": True},
    ),
    Case(name="dp2_zero3", layout=(1, 1, 2, 3), overrides=DROPOUT),
    Case(name="dp2_zero3_bf16", layout=(1, 1, 2, 3), overrides={"precision.dtype": "bf16"}),
)


def train_and_count(config: RunConfig) -> int:
    """Train; how often this rank computed attention."""
    attend = SdpaCoreAttention._attend
    with mock.patch.object(SdpaCoreAttention, "_attend", autospec=True, side_effect=attend) as counting:
        train.train(config)
    return counting.call_count


@pytest.fixture(scope="module")
def shards_all(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A JSON by which ZeRO 3 takes every weight away after use: it would leave matrices as small as these in place."""
    path = tmp_path_factory.mktemp("deepspeed") / "zero3.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}))
    return str(path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_losses_and_norms_are_the_same_to_the_bit(case: Case, data: Path, shards_all: str, tmp_path: Path) -> None:
    figures, counts = {}, {}
    for mode in get_args(Recompute):
        overrides = {**case.overrides, "run.steps": STEPS, "parallel.recompute": mode}
        if case.layout[3] == 3:
            overrides["parallel.deepspeed"] = shards_all
        config = runs.run_config(data, tmp_path / mode, case.layout, overrides)
        counts[mode] = runs.start(train_and_count, config)
        figures[mode] = runs.figures(config), runs.figures(config, "train/grad_norm")
    assert figures["selective"] == figures["none"]
    assert figures["full"] == figures["none"]
    assert counts["selective"] == counts["full"] == [2 * count for count in counts["none"]]
    assert len(set(figures["none"][0])) == STEPS
