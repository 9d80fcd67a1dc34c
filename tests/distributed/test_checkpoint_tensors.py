"""The reader of checkpoints gives back, to the bit, what the ranks held; the export of a real run is proven."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from deepspeed.utils import safe_get_full_fp32_param

from pipeline import train
from pipeline.checkpoint.logical import open_checkpoint
from pipeline.config.schema import RunConfig
from pipeline.convert.export import export
from pipeline.convert.parity import TOLERANCE
from pipeline.engine.engine import Engine
from pipeline.models.families import parameter_table
from tests.distributed import runs
from tests.distributed.runs import Layout, Weights
from tests.small_models import make_data

STEPS = 3
BF16 = {"precision.dtype": "bf16"}
TIED = {"model.tie_embeddings": True}
# A vocabulary that is padded, and differently under two tensor-parallel ranks.
ODD = {"model.vocab_size": 411}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def train_and_show_masters(config: RunConfig) -> Weights:
    """Train; the fp32 weights of this rank when it saves."""
    masters: Weights = {}
    table = parameter_table(config.model)

    def look_and_save(engine: Engine, *args: Any, **kwargs: Any) -> Path:
        for name, parameter in engine.deepspeed.module.named_parameters():
            unsharded = config.parallel.zero_stage == 0
            master = parameter if unsharded else safe_get_full_fp32_param(parameter)
            masters[table.row_of(name).name] = master.detach().float().numpy().copy()
        return save(engine, *args, **kwargs)

    save = train.save
    with mock.patch.object(train, "save", look_and_save):
        train.train(config)
    return masters


@pytest.mark.parametrize(
    ("layout", "overrides"),
    [
        ((1, 1, 1, 0), {}),
        ((2, 2, 1, 0), ODD),
        ((2, 2, 1, 1), BF16),
        ((2, 1, 2, 1), BF16 | ODD),
        ((1, 2, 2, 1), TIED),
        ((2, 2, 1, 1), TIED | BF16),
        ((1, 1, 2, 2), BF16),
        ((2, 1, 2, 3), BF16),
    ],
    ids=str,
)
def test_reads_what_the_ranks_held(data: Path, tmp_path: Path, layout: Layout, overrides: dict[str, Any]) -> None:
    config = runs.run_config(data, tmp_path / "run", layout, {"run.steps": STEPS} | overrides)
    by_rank = runs.start(train_and_show_masters, config)
    checkpoint = open_checkpoint(tmp_path / "run")
    assert (checkpoint.step, checkpoint.consumed_samples) == (STEPS, STEPS * config.batch.global_batch_size)
    tensor_parallel_size = layout[0]
    for row in checkpoint.table:
        holders = [masters[row.name] for masters in by_rank if row.name in masters]
        # Tensor-parallel ranks are neighbours; replicas over data, and of a tied parameter, come later.
        expected = row.join([torch.from_numpy(slice_) for slice_ in holders[:tensor_parallel_size]])
        np.testing.assert_array_equal(checkpoint.read(row.name).numpy(), expected.numpy(), err_msg=row.name)


def test_exports_a_run_on_four_ranks(data: Path, tmp_path: Path) -> None:
    overrides = BF16 | {"run.steps": STEPS, "data.validation": str(data / "validation")}
    config = runs.run_config(data, tmp_path / "run", (2, 2, 1, 1), overrides)
    runs.start(train.train, config)
    report = export(open_checkpoint(tmp_path / "run"), tmp_path / "model", dtype="fp32")
    assert report.parity
    assert report.parity.max_difference <= TOLERANCE
    assert report.step == STEPS
