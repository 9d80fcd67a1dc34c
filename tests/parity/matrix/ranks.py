"""What each rank of a run of the matrix calls."""

from contextlib import nullcontext
from typing import Any
from unittest import mock

import deepspeed

from pipeline import train
from pipeline.config.schema import RunConfig
from pipeline.engine.engine import Engine
from pipeline.models.parameters import ParameterTable
from tests.distributed.runs import Weights
from tests.parity.matrix.faults import FAULTS


def train_and_show_weights(config: RunConfig, fault: str | None = None) -> Weights:
    """Train, with one of FAULTS if it is named; the weights that this rank began with."""
    initial: Weights = {}

    def build_and_look(config: RunConfig, table: ParameterTable, *args: Any, **kwargs: Any) -> Engine:
        engine = build(config, table, *args, **kwargs)
        for name, parameter in engine.deepspeed.module.named_parameters():
            # ZeRO 3 has cut it further.
            with deepspeed.zero.GatheredParameters([parameter], enabled=config.parallel.zero_stage == 3):
                initial[table.row_of(name).name] = parameter.detach().float().numpy().copy()
        return engine

    build = train.build
    with FAULTS[fault]() if fault else nullcontext(), mock.patch.object(train, "build", build_and_look):
        train.train(config)
    return initial
