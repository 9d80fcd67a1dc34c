"""A batch size that grows: the same training on every layout, each sample once, and a resume in the middle of it."""

import itertools
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from deepspeed.runtime.engine import DeepSpeedEngine

from pipeline import train
from pipeline.config.schema import RunConfig
from pipeline.data.samples import Samples
from pipeline.engine.engine import Engine
from pipeline.errors import Interrupted
from pipeline.objectives.samples import Batch
from tests.distributed import runs
from tests.distributed.compare import apart
from tests.distributed.runs import Layout

STEPS = 12
ONE_RANK: Layout = (1, 1, 1, 0)
# 10 steps: 5 of 2 samples, 3 of 4, 2 of 6; then 8. One micro-batch a step on two data-parallel ranks at first.
SIZES = [2, 2, 2, 2, 2, 4, 4, 4, 6, 6, 8, 8]
RAMP: dict[str, Any] = {
    "run.steps": STEPS,
    "batch.micro_batch_size": 1,
    "batch.ramp_up_start": 2,
    "batch.ramp_up_increment": 2,
    "batch.ramp_up_samples": 30,
    "checkpoint.every_steps": 7,
}
# Sums in another order, as in test_layouts; a step that ends a micro-batch too early or too late gives 1e-3 and more.
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def one_rank(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    config = runs.run_config(data, tmp_path_factory.mktemp("run"), ONE_RANK, RAMP)
    runs.start(train.train, config)
    return config


def read_samples_while_training(config: RunConfig) -> list[int]:
    """Train; the positions that this rank has read for it, in the order read."""
    read: list[int] = []
    read_batch = Samples.batch

    def note_and_read(samples: Samples, positions: npt.NDArray[np.int64]) -> Batch:
        read.extend(positions.tolist())
        return read_batch(samples, positions)

    with mock.patch.object(Samples, "batch", note_and_read):
        train.train(config)
    return read


def train_as_deepspeed_alone_would(config: RunConfig) -> None:
    """Train with its own change of the batch size."""

    def change(engine: Engine, num_sequences: int) -> None:
        DeepSpeedEngine.set_train_batch_size(engine.deepspeed, num_sequences)

    with mock.patch.object(Engine, "set_global_batch_size", change):
        train.train(config)


def test_each_step_takes_what_is_asked(one_rank: RunConfig) -> None:
    tokens = [0, *map(int, runs.figures(one_rank, "train/tokens"))]
    taken = [(after - before) // one_rank.model.seq_len for before, after in itertools.pairwise(tokens)]
    assert taken == SIZES
    assert sum(SIZES) == one_rank.num_samples
    losses = runs.figures(one_rank)
    assert losses[-1] < losses[0] - 0.05, "nothing was learned: equal losses would prove nothing"


@pytest.mark.parametrize("layout", [(2, 2, 1, 1), (1, 1, 2, 1), (1, 1, 2, 2), (1, 1, 2, 3), (1, 2, 2, 0)], ids=str)
def test_losses_are_those_of_one_rank(layout: Layout, data: Path, one_rank: RunConfig, tmp_path: Path) -> None:
    config = runs.run_config(data, tmp_path, layout, RAMP)
    runs.start(train.train, config)
    assert apart(config, one_rank) <= TOLERANCE
    assert apart(config, one_rank, "train/grad_norm") <= 10 * TOLERANCE
    assert runs.figures(config, "train/tokens") == runs.figures(one_rank, "train/tokens")


@pytest.mark.parametrize("layout", [ONE_RANK, (1, 1, 2, 1), (2, 1, 1, 1)], ids=str)
def test_each_sample_is_read_once_in_order(layout: Layout, data: Path, tmp_path: Path) -> None:
    config = runs.run_config(data, tmp_path, layout, {**RAMP, "data.prefetch_batches": 1})
    read = runs.start(read_samples_while_training, config)
    copies = config.parallel.data_parallel_size
    assert all(found == sorted(found) for found in read)
    assert all(one == read[0] for one in read) or copies > 1, "ranks that share the layers read the same"
    together = sorted(position for found in read[:copies] for position in found)
    assert together[: sum(SIZES)] == list(range(sum(SIZES)))
    assert len(set(together)) == len(together)


def test_the_comparison_sees_a_step_that_ends_too_early(data: Path, one_rank: RunConfig, tmp_path: Path) -> None:
    """DeepSpeed alone counts micro-batches from the start of the run, and takes steps in the middle of a batch."""
    config = runs.run_config(data, tmp_path, ONE_RANK, RAMP)
    runs.start(train_as_deepspeed_alone_would, config)
    assert apart(config, one_rank) > 100 * TOLERANCE


@pytest.mark.parametrize("layout", [ONE_RANK, (1, 2, 1, 1), (1, 1, 2, 2)], ids=str)
def test_a_resume_in_the_middle_goes_on_to_the_bit(layout: Layout, data: Path, tmp_path: Path) -> None:
    whole = runs.run_config(data, tmp_path / "whole", layout, RAMP)
    runs.start(train.train, whole)
    parts = runs.run_config(data, tmp_path / "parts", layout, {**RAMP, "checkpoint.every_steps": None})
    with pytest.raises(Interrupted, match="saved after step 7 of 12"):
        runs.start(runs.train_and_stop, parts, 7)
    runs.start(train.train, parts)
    for name in ("train/loss", "train/grad_norm", "train/tokens"):
        assert runs.figures(parts, name) == runs.figures(whole, name)


def test_another_batch_size_goes_on_at_the_same_sample(data: Path, one_rank: RunConfig, tmp_path: Path) -> None:
    """The position is kept in samples, and the ramp-up is a function of it."""
    seven = runs.run_config(data, tmp_path, ONE_RANK, {**RAMP, "run.steps": 7})
    runs.start(train.train, seven)
    assert runs.figures(seven) == runs.figures(one_rank)[:7]
    changed = {**RAMP, "batch.ramp_up_start": 1, "batch.ramp_up_increment": 1, "batch.global_batch_size": 5}
    runs.start(train.train, runs.run_config(data, tmp_path, ONE_RANK, changed))
    tokens = [int(count) // 32 for count in runs.figures(seven, "train/tokens")]
    assert tokens[6:] == [18, 21, 24, 28, 32, 37]  # stretches of 7.5 samples
    assert runs.figures(seven)[:7] == runs.figures(one_rank)[:7]
