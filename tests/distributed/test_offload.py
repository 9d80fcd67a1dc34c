"""Optimizer state and weights that DeepSpeed's JSON moves to the CPU: the same training as without."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline import train
from pipeline.checkpoint.logical import open_checkpoint
from pipeline.config.schema import RunConfig
from pipeline.errors import Interrupted, UserError
from tests.distributed import runs
from tests.distributed.compare import apart
from tests.distributed.runs import Layout

STEPS = 6
TO_CPU = {"device": "cpu", "pin_memory": False}
OPTIMIZER = {"offload_optimizer": TO_CPU}
ALL = {"offload_optimizer": TO_CPU, "offload_param": TO_CPU}
# Squares are summed for the norm in another order (1e-7), which the clipping follows; a weight between two numbers of
# 16 bits then goes the other way: measured 2e-5 in bf16. The first norm of all has no such weight before it.
TOLERANCE = {"fp32": 2e-6, "bf16": 2**-9 / 16, "fp16": 2**-12 / 16}
CASES = [
    ((1, 1, 2, 1), OPTIMIZER, "bf16"),
    ((1, 2, 1, 1), OPTIMIZER, "fp32"),
    ((1, 1, 2, 2), OPTIMIZER, "fp32"),
    ((1, 1, 2, 2), OPTIMIZER, "bf16"),
    ((1, 1, 2, 3), OPTIMIZER, "fp32"),
    ((1, 1, 2, 3), ALL, "bf16"),
    ((2, 1, 1, 2), OPTIMIZER, "fp16"),
]

Trained = Callable[[Layout, str], RunConfig]


@pytest.fixture(scope="module")
def without(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run of a layout and precision that keeps all where it is."""
    known: dict[tuple[Layout, str], RunConfig] = {}

    def get(layout: Layout, dtype: str) -> RunConfig:
        if (layout, dtype) not in known:
            overrides = {"run.steps": STEPS, "optimizer.lr": 1e-3, "precision.dtype": dtype}
            known[layout, dtype] = runs.run_config(data, tmp_path_factory.mktemp("run"), layout, overrides)
            runs.start(train.train, known[layout, dtype])
        return known[layout, dtype]

    return get


def offloading(data: Path, folder: Path, layout: Layout, zero: Mapping[str, Any], dtype: str) -> RunConfig:
    (folder / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": "auto", **zero}}))
    overrides = {
        "run.steps": STEPS,
        "optimizer.lr": 1e-3,
        "precision.dtype": dtype,
        "parallel.deepspeed": str(folder / "ds.json"),
    }
    return runs.run_config(data, folder / "run", layout, overrides)


@pytest.mark.parametrize(("layout", "zero", "dtype"), CASES, ids=str)
def test_losses_are_those_without_it(
    layout: Layout, zero: Mapping[str, Any], dtype: str, without: Trained, data: Path, tmp_path: Path
) -> None:
    config = offloading(data, tmp_path, layout, zero, dtype)
    runs.start(train.train, config)
    expected = without(layout, dtype)
    assert apart(config, expected) <= TOLERANCE[dtype]
    assert apart(config, expected, "train/grad_norm") <= 10 * TOLERANCE[dtype]
    first, first_expected = (runs.figures(one, "train/grad_norm")[0] for one in (config, expected))
    assert first == pytest.approx(first_expected, rel=TOLERANCE["fp32"]), "gradients are not summed in fp32"
    made = json.loads((tmp_path / "run/deepspeed.json").read_text())
    assert made["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    losses = runs.figures(config)
    assert losses[-1] < losses[0] - 0.1, "nothing was learned: equal losses would prove nothing"


@pytest.mark.parametrize(
    ("layout", "zero"), [((1, 2, 2, 1), OPTIMIZER), ((1, 1, 2, 2), OPTIMIZER), ((1, 1, 2, 3), ALL)], ids=str
)
def test_a_run_goes_on_and_its_checkpoint_is_read(
    layout: Layout, zero: Mapping[str, Any], data: Path, tmp_path: Path, without: Trained
) -> None:
    config = offloading(data, tmp_path, layout, zero, "bf16")
    with pytest.raises(Interrupted):
        runs.start(runs.train_and_stop, config, 3)
    runs.start(train.train, config)
    expected = without(layout, "bf16")
    assert apart(config, expected) <= TOLERANCE["bf16"]
    found, plain = open_checkpoint(Path(config.run.dir)), open_checkpoint(Path(expected.run.dir))
    for row in found.table:
        read, wanted = found.read(row.name), plain.read(row.name)
        assert read.shape == wanted.shape == row.shape
        assert (read - wanted).abs().max() < 1e-3  # an update of 6 steps is at most 6e-3
        assert not read.equal(row.initial_value(config.run.seed))


def test_what_deepspeed_refuses_is_one_message(data: Path, tmp_path: Path) -> None:
    config = offloading(data, tmp_path, (1, 1, 1, 2), {"reduce_bucket_size": "large"}, "fp32")
    with pytest.raises(
        UserError, match=r"parallel\.deepspeed=.*ds\.json is refused by DeepSpeed: .*reduce_bucket_size"
    ):
        runs.start(train.train, config)
