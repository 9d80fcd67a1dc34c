"""A loss or gradient that is not finite: it is traced, no update follows from it, and the run does as it was told."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli, train
from pipeline.checkpoint import files
from pipeline.checkpoint.manifest import find_checkpoints
from pipeline.config.load import to_yaml
from pipeline.config.schema import RunConfig
from pipeline.errors import UserError
from pipeline.monitor.metrics import read_metrics
from tests.distributed import injections, runs
from tests.distributed.injections import Fault
from tests.distributed.runs import Layout

BF16 = {"precision.dtype": "bf16"}
FP16 = {"precision.dtype": "fp16", "precision.initial_loss_scale_power": 0}  # 1: it cannot be lower
SKIP = {"monitor.on_divergence": "skip"}
ROLL_BACK = {"monitor.on_divergence": "roll_back", "checkpoint.every_steps": 2, "run.steps": 5}
MODULE = "3.mlp.linear_fc1"
NAMED = "layers.2.mlp.linear_fc1"
LAYOUTS: tuple[tuple[Layout, Mapping[str, Any]], ...] = (
    ((1, 1, 1, 0), {}),
    ((2, 1, 1, 0), {"optimizer.grad_clip": 0.0}),
    ((1, 2, 1, 0), {}),
    ((1, 1, 2, 0), {}),
    ((1, 1, 2, 1), {}),
    ((1, 1, 2, 2), {}),
    ((1, 1, 2, 3), {}),
    ((2, 1, 1, 1), BF16),
    ((1, 2, 1, 1), BF16),
    ((1, 1, 2, 1), BF16),
    ((1, 1, 2, 2), BF16),
    ((1, 1, 2, 3), BF16),
    ((1, 2, 1, 1), FP16),
    ((1, 1, 2, 2), FP16),
    ((1, 1, 2, 3), FP16),
)


def last_rank(layout: Layout) -> int:
    """Also the one that has the last layers."""
    return layout[0] * layout[1] * layout[2] - 1


def log_of(config: RunConfig) -> str:
    return (Path(config.run.dir) / "log/rank_00000.log").read_text()


@pytest.mark.parametrize(("layout", "overrides"), LAYOUTS, ids=str)
def test_a_skipped_step_changes_nothing_and_is_traced(
    data: Path, tmp_path: Path, layout: Layout, overrides: Mapping[str, Any]
) -> None:
    config = runs.run_config(data, tmp_path, layout, {"run.steps": 6} | SKIP | overrides)
    rank = last_rank(layout)
    faults = (
        Fault(rank=rank, where=MODULE, value=math.inf, times=(2,)),
        Fault(rank=rank, where=MODULE, kind="gradient", times=(3,)),
        Fault(rank=rank, kind="loss", value=math.inf, times=(4,)),
    )
    for seen in runs.start(injections.train_with, config, *faults):
        assert seen[1] == seen[2] == seen[3] == seen[4], "weights, masters or moments have changed"
        assert len(set(seen)) == 3, "the other steps have changed nothing"
    records = read_metrics(tmp_path)
    assert [record["train/skipped"] for record in records] == [0, 1, 1, 1, 0, 0]
    assert [record.get("train/divergences", 0) for record in records] == [0, 1, 2, 3, 3, 3]
    assert all(math.isfinite(value) for record in records for value in record.values())
    log = log_of(config)
    position = 8 + 2 * (rank if layout[2] > 1 else 0)  # the second step's, of the second copy where there is one
    assert f"first output that is not finite is that of {NAMED} on rank {rank} (" in log
    assert f"in micro-batch 0. Its samples are shown by `pretrain data preview RUN.yaml --position {position} " in log
    assert f"it was the backward pass, first at the gradient of {NAMED}.weight on rank" in log
    assert f"is that of the loss on rank {rank} (" in log


@pytest.mark.parametrize("layout", [(1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 2, 2), (1, 1, 2, 3)], ids=str)
def test_only_one_rank_may_hold_the_gradient_that_is_not_finite(data: Path, tmp_path: Path, layout: Layout) -> None:
    """The backward pass ends at the embedding, and goes wrong there: no other parameter is touched."""
    config = runs.run_config(data, tmp_path, layout, {"run.steps": 3} | SKIP)
    fault = Fault(rank=0, where="0.word_embeddings", kind="gradient", times=(2,))
    for seen in runs.start(injections.train_with, config, fault):
        assert seen[1] == seen[2]
    assert "first at the gradient of embedding.word_embeddings.weight on rank" in log_of(config)


@pytest.mark.parametrize("layout", [(1, 2, 1, 1), (1, 1, 2, 3)], ids=str)
def test_gradients_of_fp16_may_overflow_as_long_as_the_scale_can_be_lower(
    data: Path, tmp_path: Path, layout: Layout
) -> None:
    overrides = {"run.steps": 4} | FP16 | {"precision.initial_loss_scale_power": 8}
    config = runs.run_config(data, tmp_path, layout, overrides)
    fault = Fault(rank=last_rank(layout), where=MODULE, kind="gradient", times=(2,))
    for seen in runs.start(injections.train_with, config, fault):
        assert seen[1] == seen[2]
    assert runs.figures(config, "train/skipped") == [0, 1, 0, 0]
    assert "diverged" not in log_of(config)


@pytest.mark.parametrize(
    ("layout", "overrides"),
    [((1, 1, 1, 0), {}), ((1, 2, 1, 1), BF16), ((2, 1, 2, 2), FP16), ((1, 1, 2, 3), BF16)],
    ids=str,
)
def test_a_run_that_rolls_back_goes_on_with_other_data(
    data: Path, tmp_path: Path, layout: Layout, overrides: Mapping[str, Any]
) -> None:
    config = runs.run_config(data, tmp_path, layout, ROLL_BACK | overrides)
    rank = last_rank(layout)
    for seen in runs.start(injections.train_with, config, Fault(rank=rank, where=MODULE, times=(4,))):
        assert len(seen) == 7, "steps 1 to 4, and 3 to 5 again"
        assert seen[4] == seen[2], "step 3 has begun from another state than it did at first"
        assert len(set(seen)) == 6
    records = read_metrics(tmp_path)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert [record["train/tokens"] / (8 * 32) for record in records] == [1, 2, 5, 6, 7]
    assert [record.get("train/divergences", 0) for record in records] == [0, 0, 1, 1, 1]
    assert "rolled back to" in log_of(config)
    assert "the 16 samples since are not read again" in log_of(config)
    assert saved_position(config) == (5, 56)

    longer = runs.run_config(data, tmp_path, layout, ROLL_BACK | overrides | {"run.steps": 6})
    runs.start(train.train, longer)
    assert saved_position(longer) == (6, 64)


def saved_position(config: RunConfig) -> tuple[int, int]:
    """Step and samples of the newest checkpoint."""
    found = files.newest(Path(config.run.dir))
    assert found
    return found[1].step, found[1].consumed_samples


def test_stopping_names_the_place_and_saves_nothing(data: Path, tmp_path: Path) -> None:
    config = runs.run_config(data, tmp_path, (2, 2, 1, 1), {"run.steps": 4, "checkpoint.every_steps": 1} | BF16)
    with pytest.raises(UserError) as caught:
        runs.start(injections.train_with, config, Fault(rank=1, where="2.self_attention.linear_proj", times=(3,)))
    message = str(caught.value)
    assert message.startswith("step 3 has loss nan and gradient norm inf: training has diverged. ")
    assert "is that of layers.1.self_attention.linear_proj on rank 1 (" in message
    assert "set monitor.on_divergence=skip or roll_back" in message
    assert [folder.name for folder in find_checkpoints(tmp_path)] == ["step_0000002", "step_0000001"]
    runs.start(train.train, config)
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_the_rank_at_fault_is_named_and_not_those_that_it_infects(data: Path, tmp_path: Path) -> None:
    """The sum over tensor-parallel ranks carries it to the first rank, the pipeline to the second stage."""
    config = runs.run_config(data, tmp_path, (2, 2, 1, 1), {"run.steps": 3})
    with pytest.raises(UserError, match=r"is that of layers\.0\.mlp\.linear_fc1 on rank 1 \("):
        runs.start(injections.train_with, config, Fault(rank=1, where="1.mlp.linear_fc1", times=(2,)))


@pytest.mark.parametrize(("layout", "overrides"), [((2, 1, 1, 0), {}), ((1, 1, 2, 1), BF16)], ids=str)
def test_a_weight_that_is_not_finite_cannot_be_skipped(
    data: Path, tmp_path: Path, layout: Layout, overrides: Mapping[str, Any]
) -> None:
    config = runs.run_config(data, tmp_path, layout, {"run.steps": 4} | SKIP | overrides)
    with pytest.raises(UserError) as caught:
        runs.start(injections.train_with, config, Fault(rank=1, where=f"{MODULE}.weight", kind="weight", times=(2,)))
    message = str(caught.value)
    assert f"Weights are not finite themselves: {NAMED}.weight on rank 1. " in message
    assert "monitor.on_divergence=skip cannot mend weights" in message


@pytest.mark.parametrize(("layout", "overrides"), [((2, 1, 1, 0), {}), ((1, 1, 2, 3), BF16)], ids=str)
def test_a_roll_back_mends_weights(data: Path, tmp_path: Path, layout: Layout, overrides: Mapping[str, Any]) -> None:
    config = runs.run_config(data, tmp_path, layout, ROLL_BACK | overrides)
    fault = Fault(rank=1, where=f"{MODULE}.weight", kind="weight", times=(4,))
    for seen in runs.start(injections.train_with, config, fault):
        assert seen[4] == seen[2]
    assert saved_position(config) == (5, 56)


def test_weights_that_an_update_has_spoiled_are_not_saved(data: Path, tmp_path: Path) -> None:
    """The loss of that step, and its gradients, are finite."""
    overrides = {"checkpoint.every_steps": 1, "optimizer.lr": 1e39}  # infinite in fp32
    config = runs.run_config(data, tmp_path, (1, 1, 1, 1), overrides)
    told = r"^step 1 has loss 5\..* training has diverged\. .*Weights are not finite themselves: embedding\.word"
    with pytest.raises(UserError, match=told):
        runs.start(train.train, config)
    assert not find_checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("layout", "overrides"),
    [((2, 1, 1, 0), {"parallel.sequence_parallel": True}), ((1, 2, 1, 1), BF16)],
    ids=["tp2_sequence_parallel", "pp2"],
)
def test_the_forward_pass_is_repeated_with_the_same_dropout(
    data: Path, tmp_path: Path, layout: Layout, overrides: Mapping[str, Any]
) -> None:
    """Else what is not finite may not come again."""
    dropout = {"model.hidden_dropout": 0.3, "model.attention_dropout": 0.3}
    learns_nothing = {"optimizer.lr": 1e-30, "run.steps": 3}
    config = runs.run_config(data, tmp_path, layout, dropout | learns_nothing | overrides)
    *_, (trained, repeated, trained_next) = runs.start(injections.repeat_second_step, config)
    assert len(trained) == 4
    assert repeated == trained
    assert len(set(trained + trained_next)) == 8


def test_there_may_be_nothing_to_roll_back_to(data: Path, tmp_path: Path) -> None:
    config = runs.run_config(data, tmp_path, (1, 1, 1, 0), ROLL_BACK)
    with pytest.raises(UserError) as caught:
        runs.start(injections.train_with, config, Fault(rank=0, where=MODULE, times=(2,)))
    assert f"is that of {NAMED} on rank 0" in str(caught.value)
    assert "roll_back has nothing to go back to: no checkpoint was saved before" in str(caught.value)


@pytest.mark.parametrize("overrides", [SKIP, ROLL_BACK | {"run.steps": 9}], ids=["skip", "roll_back"])
def test_only_so_many_divergences_are_answered(data: Path, tmp_path: Path, overrides: Mapping[str, Any]) -> None:
    config = runs.run_config(data, tmp_path, (1, 1, 1, 0), overrides | {"monitor.max_divergences": 2})
    with pytest.raises(UserError, match=r"So did 2 steps before, and no more may: monitor\.max_divergences=2"):
        runs.start(injections.train_with, config, Fault(rank=0, where=MODULE, times=(4, 6, 8)))


def test_a_validation_loss_that_is_not_finite_is_traced_and_harms_nothing(data: Path, tmp_path: Path) -> None:
    overrides = {
        "run.steps": 2,
        "data.validation": str(data / "validation"),
        "monitor.eval_every_steps": 1,
        "monitor.eval_samples": 8,
    }
    config = runs.run_config(data, tmp_path, (1, 2, 2, 1), overrides)
    runs.start(injections.train_with, config, Fault(rank=3, where=MODULE, kind="validation", times=(1,)))
    first, second = read_metrics(tmp_path)
    assert "validation/loss" not in first
    assert math.isfinite(second["validation/loss"])
    assert f"the validation loss is nan. The first output that is not finite is that of {NAMED} on rank 3 (" in log_of(
        config
    )
    assert "--position 2 --count 2 --validation`" in log_of(config)


def test_the_command_ends_with_a_sentence(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = runs.run_config(data, tmp_path / "run", (1, 1, 1, 1), {"optimizer.lr": 1e38, "optimizer.grad_clip": 0.0})
    path = tmp_path / "run.yaml"
    path.write_text(to_yaml(config))
    assert cli.main(["train", str(path)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: step ")
    assert "training has diverged" in last


def test_metrics_are_json_that_every_reader_takes(data: Path, tmp_path: Path) -> None:
    config = runs.run_config(data, tmp_path, (1, 1, 1, 0), {"run.steps": 2} | SKIP)
    runs.start(injections.train_with, config, Fault(rank=0, where=MODULE, times=(1,)))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
