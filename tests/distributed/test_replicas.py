"""Ranks that come to hold other values than their copies are found and named; those that agree are left alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline import train
from pipeline.checkpoint.manifest import find_checkpoints
from pipeline.errors import UserError
from tests.distributed import injections, runs
from tests.distributed.runs import Layout

SHORT = {"run.steps": 2, "monitor.check_replicas_every_steps": 1}
BF16 = {"precision.dtype": "bf16"}
TIED = {"model.tie_embeddings": True}
NORM = "1.input_norm.weight"
QKV_BIAS = "1.self_attention.linear_qkv.bias"


@pytest.mark.parametrize(
    ("layout", "overrides", "rank", "name", "told"),
    [
        pytest.param((2, 1, 1, 0), {}, 1, NORM, "layers.0.input_norm.weight differs between rank 0, rank 1", id="tp"),
        pytest.param(
            (2, 1, 2, 3), {}, 3, NORM, "layers.0.input_norm.weight differs between rank 2, rank 3", id="tp_of_zero3"
        ),
        pytest.param(
            (1, 1, 4, 1),
            BF16,
            2,
            "3.mlp.linear_fc1.weight",
            "layers.2.mlp.linear_fc1.weight of rank 2 differs from that of ranks 0, 1, 3",
            id="dp",
        ),
        pytest.param(
            (2, 1, 2, 2),
            {"model.architecture": "qwen2"},
            1,
            QKV_BIAS,
            "layers.0.self_attention.linear_qkv.bias differs between rank 1, rank 3",
            id="dp_of_a_split_bias",
        ),
        pytest.param(
            (1, 2, 1, 0),
            TIED,
            1,
            "tied_modules.0.word_embeddings.weight",
            "embedding.word_embeddings.weight differs between rank 0, rank 1",
            id="tied",
        ),
    ],
)
def test_a_copy_that_differs_by_one_bit_is_named(
    data: Path, tmp_path: Path, layout: Layout, overrides: Mapping[str, Any], rank: int, name: str, told: str
) -> None:
    config = runs.run_config(data, tmp_path, layout, SHORT | overrides)
    with pytest.raises(UserError) as caught:
        runs.start(injections.train_with_perturbed, config, 1, rank, name)
    assert str(caught.value).startswith(f"after step 1 ranks hold different values of what must be equal: {told}")
    assert "Go back" in str(caught.value)
    assert not find_checkpoints(tmp_path), "what is wrong was saved"


@pytest.mark.parametrize(
    ("layout", "overrides", "rank", "name", "told"),
    [
        ((2, 1, 1, 1), {}, 1, NORM, "the fp32 master of layers.0.input_norm.weight"),
        ((2, 1, 2, 2), {}, 1, NORM, "the fp32 master of layers.0.input_norm.weight"),
        (
            (1, 2, 1, 1),
            TIED,
            1,
            "tied_modules.0.word_embeddings.weight",
            "the fp32 master of embedding.word_embeddings.weight",
        ),
    ],
    ids=["tp", "tp_of_zero2", "tied"],
)
def test_masters_are_compared_too(
    data: Path, tmp_path: Path, layout: Layout, overrides: Mapping[str, Any], rank: int, name: str, told: str
) -> None:
    """What the model computes with is rounded from them, so that it may still be the same."""
    config = runs.run_config(data, tmp_path, layout, SHORT | BF16 | overrides)
    with pytest.raises(UserError, match="after step 1 ranks hold different values") as caught:
        runs.start(injections.train_with_perturbed, config, 1, rank, name, True)
    assert f": {told} differs between rank" in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "overrides"),
    [((2, 2, 1, 0), TIED), ((2, 2, 1, 1), TIED | BF16), ((2, 1, 2, 2), BF16), ((2, 1, 2, 3), BF16)],
    ids=str,
)
def test_a_run_in_which_nothing_is_wrong_goes_on(
    data: Path, tmp_path: Path, layout: Layout, overrides: Mapping[str, Any]
) -> None:
    config = runs.run_config(data, tmp_path, layout, SHORT | overrides | {"run.steps": 3})
    runs.start(train.train, config)
    assert len(runs.figures(config)) == 3


def test_a_missing_sum_of_norm_gradients_is_seen(data: Path, tmp_path: Path) -> None:
    config = runs.run_config(data, tmp_path, (2, 1, 1, 0), SHORT | {"parallel.sequence_parallel": True})
    with pytest.raises(UserError, match=r"after step 1 ranks hold different values of .*norm\.weight differs between"):
        runs.start(runs.train_without_summing_norm_gradients, config)


def test_a_copy_is_not_checked_between_the_steps_that_are_asked_for(data: Path, tmp_path: Path) -> None:
    config = runs.run_config(data, tmp_path, (2, 1, 1, 0), SHORT | {"monitor.check_replicas_every_steps": None})
    runs.start(runs.train_without_summing_norm_gradients, config)
    assert len(runs.figures(config)) == 2
