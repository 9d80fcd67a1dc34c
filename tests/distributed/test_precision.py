"""fp16 and bf16 on CPU ranks: fp16 splits as fp32 does, its loss scale finds its place, gradients sum up in fp32."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from deepspeed.runtime.pipe import schedule
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline import train
from pipeline.config.schema import RunConfig
from pipeline.engine import staged
from pipeline.errors import Interrupted
from tests.distributed import runs
from tests.distributed.compare import apart
from tests.distributed.runs import Layout

STEPS = 8
ONE_RANK: Layout = (1, 1, 1, 1)
IN_FP16: dict[str, Any] = {"precision.dtype": "fp16", "run.steps": STEPS}
TIED: dict[str, Any] = {**IN_FP16, "model.tie_embeddings": True}
# A logit is rounded to 2^-12 of its size, the loss is a mean of 256: 2^-12 / 16 = 1.5e-5; measured 2e-6.
FP16 = 2**-12 / 16
# Its gradient's norm is over 170,000 numbers that are rounded so; measured 3e-5.
FP16_NORM = 10 * FP16

Trained = Callable[[Layout, Mapping[str, Any]], RunConfig]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trains on a layout; a run that several tests compare with is run once."""
    known: dict[str, RunConfig] = {}

    def get(layout: Layout, overrides: Mapping[str, Any]) -> RunConfig:
        key = f"{layout} {sorted(overrides.items())}"
        if key not in known:
            known[key] = runs.run_config(data, tmp_path_factory.mktemp("run"), layout, overrides)
            runs.start(train.train, known[key])
        return known[key]

    return get


def test_fp16_trains_as_fp32(trained: Trained) -> None:
    found, expected = trained(ONE_RANK, IN_FP16), trained(ONE_RANK, {**IN_FP16, "precision.dtype": "fp32"})
    assert 0 < apart(found, expected) < 4 * FP16
    assert apart(found, expected, "train/grad_norm") < 2**-9
    assert runs.figures(found, "train/loss_scale") == [2**16] * STEPS
    assert sum(runs.figures(found, "train/skipped")) == 0
    assert runs.figures(found)[-1] < runs.figures(found)[0]


@pytest.mark.parametrize(
    ("layout", "overrides"),
    [
        ((1, 2, 1, 1), IN_FP16),
        ((2, 1, 2, 1), {**IN_FP16, "parallel.sequence_parallel": True}),
        ((1, 1, 2, 2), IN_FP16),
        ((1, 1, 2, 3), IN_FP16),
        ((1, 2, 1, 1), TIED),
    ],
    ids=["pp2", "tp2_dp2_sequence_parallel", "zero2", "zero3", "tied_pp2"],
)
def test_fp16_is_the_same_on_every_layout(layout: Layout, overrides: Mapping[str, Any], trained: Trained) -> None:
    whole = {key: value for key, value in overrides.items() if not key.startswith("parallel.")}
    found, expected = trained(layout, overrides), trained(ONE_RANK, whole)
    assert apart(found, expected) < FP16
    assert apart(found, expected, "train/grad_norm") < FP16_NORM


def train_with_deepspeeds_sum_of_tied_gradients(config: RunConfig) -> None:
    amend = staged.amend

    def amend_but_one(engine: Any) -> None:
        theirs = engine._INSTRUCTION_MAP[schedule.ReduceTiedGrads]
        amend(engine)
        engine._INSTRUCTION_MAP[schedule.ReduceTiedGrads] = theirs

    with mock.patch("pipeline.engine.build.amend", amend_but_one):
        train.train(config)


def test_the_comparison_sees_tied_gradients_that_are_not_summed(trained: Trained, data: Path, tmp_path: Path) -> None:
    """DeepSpeed alone looks for them where fp16 does not keep them."""
    config = runs.run_config(data, tmp_path, (1, 2, 1, 1), TIED | {"monitor.check_replicas_every_steps": None})
    runs.start(train_with_deepspeeds_sum_of_tied_gradients, config)
    assert apart(config, trained(ONE_RANK, TIED), "train/grad_norm") > 10 * FP16_NORM


def overflowing(data: Path, folder: Path, layout: Layout, **changes: Any) -> RunConfig:
    """A run whose loss scale begins too high, and is tried higher again after 3 steps."""
    folder.mkdir(exist_ok=True)
    (folder / "ds.json").write_text(json.dumps({"fp16": {"loss_scale_window": 3, "hysteresis": 1}}))
    overrides = {
        **IN_FP16,
        "run.steps": 14,
        "parallel.deepspeed": str(folder / "ds.json"),
        "precision.initial_loss_scale_power": 24,
        "data.validation": str(data / "validation"),
        "monitor.eval_every_steps": 1,
        "monitor.eval_samples": 8,
    }
    return runs.run_config(data, folder / "run", layout, overrides | changes)


def train_and_count_updates(config: RunConfig) -> float:
    """Train; the updates that Adam's bias correction knows of."""
    with runs.engine_kept() as engines:
        train.train(config)
    state = engines[0].deepspeed.basic_optimizer.state
    return max(float(of_one["step"]) for of_one in state.values())


@pytest.mark.parametrize("layout", [ONE_RANK, (1, 2, 1, 1), (1, 1, 2, 2), (1, 1, 2, 3)], ids=str)
def test_the_loss_scale_goes_down_and_up_and_a_skipped_step_learns_nothing(
    layout: Layout, data: Path, tmp_path: Path
) -> None:
    config = overflowing(data, tmp_path, layout)
    updates = runs.start(train_and_count_updates, config)
    skipped, scales = runs.figures(config, "train/skipped"), runs.figures(config, "train/loss_scale")
    validation = runs.figures(config, "validation/loss")
    steps = range(1, len(scales))
    assert skipped[0] == 1
    assert 0 < sum(skipped) < len(skipped)
    for step in steps:
        if skipped[step - 1]:
            assert scales[step] == scales[step - 1] / 2
        else:
            assert scales[step] in (scales[step - 1], 2 * scales[step - 1])
        assert (validation[step] == validation[step - 1]) == bool(skipped[step])
    assert any(scales[step] > scales[step - 1] for step in steps), "it has never grown"
    assert set(updates) == {len(skipped) - sum(skipped)}
    assert all(loss < 10 for loss in runs.figures(config))
    lines = (Path(config.run.dir) / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 14, "a skipped step is a step of the run"


def test_a_resume_has_the_loss_scale_that_it_left(data: Path, tmp_path: Path) -> None:
    whole = overflowing(data, tmp_path / "whole", (1, 1, 2, 1))
    runs.start(train.train, whole)
    parts = overflowing(data, tmp_path / "whole", (1, 1, 2, 1), **{"run.dir": str(tmp_path / "parts")})
    with pytest.raises(Interrupted):
        runs.start(runs.train_and_stop, parts, 9)
    runs.start(train.train, parts)
    for name in ("train/loss", "train/loss_scale", "train/skipped"):
        assert runs.figures(parts, name) == runs.figures(whole, name)


class _Reductions(TorchDispatchMode):
    """Notes the dtype and the numbers of all that ranks sum."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[torch.dtype, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if name.startswith("c10d") and "reduce" in name:
            for tensor in torch.utils._pytree.tree_leaves(args):
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel() > 1:
                    self.sizes[tensor.dtype] = self.sizes.get(tensor.dtype, 0) + tensor.numel()
        return func(*args, **(kwargs or {}))


def train_and_note_reductions(config: RunConfig) -> dict[str, int]:
    """Train; dtype -> how many numbers were summed over ranks."""
    noted = _Reductions()
    with noted:
        train.train(config)
    return {str(dtype): size for dtype, size in noted.sizes.items()}


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("layout", [(1, 1, 2, 1), (1, 2, 2, 1), (1, 1, 2, 2), (1, 1, 2, 3)], ids=str)
def test_gradients_travel_in_fp32(layout: Layout, dtype: str, data: Path, tmp_path: Path) -> None:
    overrides = {"precision.dtype": dtype, "run.steps": 1, "monitor.check_replicas_every_steps": None}
    sums = runs.start(train_and_note_reductions, runs.run_config(data, tmp_path, layout, overrides))
    for found in sums:
        assert set(found) == {"torch.float32"}
    assert sum(found["torch.float32"] for found in sums) > 2 * 170_000


@pytest.mark.parametrize("layout", [(1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 2, 2), (1, 1, 2, 3)], ids=str)
def test_gradients_of_16_micro_batches_are_summed_in_fp32(layout: Layout, trained: Trained) -> None:
    """A sum in bf16 rounds 16 times to 2^-9; all stages agree to the rounding of fp32, and not with such a sum."""
    many = {"precision.dtype": "bf16", "run.steps": 2, "batch.micro_batch_size": 1, "batch.global_batch_size": 16}
    expected = runs.figures(trained(ONE_RANK, many), "train/grad_norm")[0]
    found = runs.figures(trained(layout, many), "train/grad_norm")[0]
    rounded = trained((1, 1, 1, 2), {**many, "precision.grad_accum_dtype": "bf16"})
    assert abs(found / expected - 1) < 2e-6
    assert abs(runs.figures(rounded, "train/grad_norm")[0] / expected - 1) > 2e-5
