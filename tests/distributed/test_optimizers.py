"""Optimizers that DeepSpeed's JSON names: built over our groups, with our settings, the same on every layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import train
from pipeline.config.schema import RunConfig
from pipeline.errors import UserError
from tests.distributed import runs
from tests.distributed.compare import apart, largest_difference
from tests.distributed.runs import Layout

STEPS = 6
ONE_RANK: Layout = (1, 1, 1, 0)
# Sums in another order, as in test_layouts.
FP32 = 2e-6
PARAMS: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "Adam": {"adam_w_mode": False, "lr": "auto", "betas": "auto"},
    "SGD": {"momentum": 0.9},
    "RAdam": {"decoupled_weight_decay": True},
    "Adagrad": {},
}

Trained = Callable[[str], RunConfig]


def by_json(data: Path, folder: Path, layout: Layout, name: str, **changes: Any) -> RunConfig:
    """A run with the optimizer `name` of DeepSpeed's JSON."""
    folder.mkdir(exist_ok=True)
    content = {"optimizer": {"type": name, "params": PARAMS.get(name, {})}, "zero_allow_untested_optimizer": True}
    (folder / "ds.json").write_text(json.dumps(content))
    overrides = {
        "run.steps": STEPS,
        "optimizer.lr": 1e-2 if name == "SGD" else 1e-3,
        "optimizer.name": "deepspeed",
        "parallel.deepspeed": str(folder / "ds.json"),
    }
    return runs.run_config(data, folder / "run", layout, overrides | changes)


@pytest.fixture(scope="module")
def one_rank(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    known: dict[str, RunConfig] = {}

    def get(name: str) -> RunConfig:
        if name not in known:
            known[name] = by_json(data, tmp_path_factory.mktemp(name), ONE_RANK, name)
            runs.start(train.train, known[name])
        return known[name]

    return get


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("AdamW", (2, 2, 1, 1)),
        ("Adam", (1, 1, 2, 3)),
        ("SGD", (1, 2, 2, 1)),
        ("SGD", (1, 1, 2, 2)),
        ("RAdam", (1, 1, 2, 3)),
        ("Adagrad", (2, 1, 2, 0)),
    ],
    ids=str,
)
def test_losses_are_those_of_one_rank(name: str, layout: Layout, data: Path, one_rank: Trained, tmp_path: Path) -> None:
    config = by_json(data, tmp_path, layout, name)
    runs.start(train.train, config)
    expected = one_rank(name)
    assert apart(config, expected) <= FP32
    assert apart(config, expected, "train/grad_norm") <= 10 * FP32
    losses = runs.figures(expected)
    assert losses[-1] < losses[0] - 0.01, "nothing was learned: equal losses would prove nothing"


def test_adamw_of_the_json_is_ours(data: Path, one_rank: Trained, tmp_path: Path) -> None:
    ours = runs.run_config(data, tmp_path, ONE_RANK, {"run.steps": STEPS, "optimizer.lr": 1e-3})
    runs.start(train.train, ours)
    assert apart(one_rank("AdamW"), ours) <= FP32


def test_they_differ_from_each_other(one_rank: Trained) -> None:
    losses = [runs.figures(one_rank(name)) for name in PARAMS]
    for index, one in enumerate(losses):
        for other in losses[index + 1 :]:
            assert largest_difference(one, other) > 1e-3


def train_and_show_groups(config: RunConfig) -> list[tuple[str, float, float, int]]:
    """Train; class, learning rate, weight decay and size of each group of the optimizer."""
    with runs.engine_kept() as engines:
        train.train(config)
    optimizer = engines[0].deepspeed.basic_optimizer
    return [
        (type(optimizer).__name__, group["lr"], group["weight_decay"], sum(one.numel() for one in group["params"]))
        for group in optimizer.param_groups
    ]


@pytest.mark.parametrize("layout", [ONE_RANK, (1, 1, 1, 2)], ids=str)
def test_norms_do_not_decay_and_the_rate_is_the_schedules(layout: Layout, data: Path, tmp_path: Path) -> None:
    changes = {"schedule.decay": "inverse_sqrt", "schedule.warmup_steps": 1, "run.steps": 4}
    config = by_json(data, tmp_path, layout, "RAdam", **changes)
    [groups] = runs.start(train_and_show_groups, config)
    norms = 9 * config.model.hidden_size
    assert [group[0] for group in groups] == ["RAdam"] * 2
    assert [group[1] for group in groups] == pytest.approx([0.5e-3] * 2)
    assert [group[2] for group in groups] == [config.optimizer.weight_decay, 0.0]
    assert groups[1][3] == norms


@pytest.mark.parametrize("layout", [ONE_RANK, (1, 1, 2, 1), (1, 1, 2, 3)], ids=str)
def test_a_run_with_another_optimizer_goes_on_to_the_bit(layout: Layout, data: Path, tmp_path: Path) -> None:
    whole = by_json(data, tmp_path / "whole", layout, "SGD")
    runs.start(train.train, whole)
    parts = by_json(data, tmp_path / "parts", layout, "SGD", **{"run.steps": 3})
    runs.start(train.train, parts)
    runs.start(train.train, by_json(data, tmp_path / "parts", layout, "SGD"))
    assert runs.figures(parts) == runs.figures(whole)


@pytest.mark.parametrize("layout", [ONE_RANK, (1, 1, 1, 1), (1, 1, 1, 3)], ids=str)
def test_a_checkpoint_of_another_optimizer_is_refused(layout: Layout, data: Path, tmp_path: Path) -> None:
    runs.start(train.train, by_json(data, tmp_path, layout, "AdamW", **{"run.steps": 2}))
    with pytest.raises(UserError, match=r"step_0000002 is of another optimizer, which has no .*momentum"):
        runs.start(train.train, by_json(data, tmp_path, layout, "SGD"))


def test_a_setting_that_the_optimizer_does_not_have_is_one_message(data: Path, tmp_path: Path) -> None:
    config = by_json(data, tmp_path, ONE_RANK, "SGD")
    (tmp_path / "ds.json").write_text(json.dumps({"optimizer": {"type": "SGD", "params": {"momentumm": 0.9}}}))
    with pytest.raises(UserError, match=r"is refused by DeepSpeed: .*unexpected keyword argument 'momentumm'"):
        runs.start(train.train, config)
