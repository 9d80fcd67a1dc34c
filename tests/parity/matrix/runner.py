"""Trains the runs of the matrix, and says how far each is from the one that it is compared with."""

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.checkpoint.logical import open_checkpoint
from pipeline.config.schema import Dtype, RunConfig
from pipeline.models.families import parameter_table
from pipeline.monitor.metrics import read_metrics
from pipeline.topology import Topology
from tests.distributed import runs
from tests.distributed.runs import Weights
from tests.parity.matrix.cases import MODELS
from tests.parity.matrix.ranks import train_and_show_weights
from tests.parity.matrix.records import UNSPLIT, Case, Kind, Layout, Options

STEPS = 10
EVALUATED = 16  # samples
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Figures = Mapping[Kind, Sequence[float]]
"""loss and grad_norm of each step, and evaluation: the loss on held-out data after the last one."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that has ended.

    Attributes:
        wrong: parameters that did not begin, to the bit, as the table says.
        weights: logical name -> the full parameter after the last step, fp32; the master where there is one.
    """

    config: RunConfig
    figures: Figures
    wrong: list[str]
    weights: Weights


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The largest one between two runs, as `Tolerance` measures it, and the step or parameter that has it."""

    size: float
    at: str


class Runner:
    """Trains on small data in `data`, each run in a new folder of `work`."""

    def __init__(self, data: Path, work: Path) -> None:
        self._data = data
        self._work = work
        self._count = 0
        self._unsplit: dict[str, Trained] = {}
        # ZeRO 3 would leave matrices as small as these in place; with this it takes each away after use.
        self._shards_all = work / "zero3.json"
        zero = {"stage": 3, "stage3_param_persistence_threshold": 0}
        self._shards_all.write_text(json.dumps({"zero_optimization": zero}))

    def split(self, case: Case) -> Trained:
        """The run of a case."""
        config = self._config(case.model, case.layout, {**case.options, **case.split_options}, case.precision)
        return _trained(config)

    def unsplit(self, case: Case) -> Trained:
        """What a case is compared with; it is run once for all cases that are compared with it."""
        key = f"{case.model} {sorted(case.options.items())}"
        if key not in self._unsplit:
            self._unsplit[key] = _trained(self._config(case.model, UNSPLIT, case.options))
        return self._unsplit[key]

    def with_fault(self, fault: str, case: Case) -> Figures:
        """The figures of the split run of a case with one of `faults.FAULTS`, and with no check of its own."""
        options = {**case.options, **case.split_options, "monitor.check_replicas_every_steps": None}
        config = self._config(case.model, case.layout, options, case.precision)
        runs.start(train_and_show_weights, config, fault)
        return _figures(config)

    def _config(self, model: str, layout: Layout, options: Options, dtype: Dtype = "fp32") -> RunConfig:
        self._count += 1
        shared = {
            "run.steps": STEPS,
            # So high that 10 steps change every weight by up to a hundredth; differences of rounding still do not grow.
            "optimizer.lr": 1e-3,
            # Gradients are about 1e-2. With Adam's usual 1e-8 those below 1e-7, which are rounding in good part, would
            # move a weight as far as any other.
            "optimizer.epsilon": 1e-6,
            "data.validation": str(self._data / "validation"),
            "monitor.eval_samples": EVALUATED,
            "parallel.sequence_parallel": layout.sequence_parallel,
            "precision.dtype": dtype,
        }
        if layout.zero == 3:
            shared["parallel.deepspeed"] = str(self._shards_all)
        sizes = (layout.tensor, layout.pipeline, layout.data, layout.zero)
        folder = self._work / f"run_{self._count:04d}"
        return runs.run_config(self._data, folder, sizes, {**shared, **MODELS[model], **options})


def _trained(config: RunConfig) -> Trained:
    initial = runs.start(train_and_show_weights, config)
    folder = Path(config.run.dir)
    checkpoint = open_checkpoint(folder)
    trained = Trained(
        config=config,
        figures=_figures(config),
        wrong=wrong_initial_weights(config, initial),
        weights={row.name: checkpoint.read(row.name).numpy().copy() for row in checkpoint.table},
    )
    shutil.rmtree(folder)
    return trained


def _figures(config: RunConfig) -> Figures:
    metrics = read_metrics(Path(config.run.dir))
    assert len(metrics) == STEPS
    return {
        "loss": [record["train/loss"] for record in metrics],
        "grad_norm": [record["train/grad_norm"] for record in metrics],
        "evaluation": [metrics[-1]["validation/loss"]],
    }


def wrong_initial_weights(config: RunConfig, weights: Sequence[Weights]) -> list[str]:
    """The parameters that are not, to the bit, what the table says once the slices of the ranks are joined.

    Args:
        weights: of each rank.
    """
    parallel, dtype = config.parallel, DTYPES[config.precision.dtype]
    topology = Topology(
        tensor=parallel.tensor_parallel_size,
        pipeline=parallel.pipeline_parallel_size,
        data=parallel.data_parallel_size,
    )
    table = {row.name: row for row in parameter_table(config.model)}
    initial = {name: row.initial_value(config.run.seed).to(dtype).float() for name, row in table.items()}
    right, wrong = set(), set()
    for ranks in topology.groups("tensor"):
        slices = [weights[rank] for rank in ranks]
        for name in slices[0]:
            joined = table[name].join([torch.from_numpy(part[name]) for part in slices])
            (right if torch.equal(joined, initial[name]) else wrong).add(name)
    return sorted(wrong | (table.keys() - right))


def differences(found: Trained, expected: Trained) -> dict[Kind, Difference]:
    """Those of each kind."""
    return {**differences_of_figures(found.figures, expected.figures), **_differences_of_weights(found, expected)}


def differences_of_figures(found: Figures, expected: Figures) -> dict[Kind, Difference]:
    """Those of losses and gradient norms."""
    return {
        kind: _largest(
            (abs(one - other) / abs(other), f"step {step}")
            for step, (one, other) in enumerate(zip(found[kind], values, strict=True), start=1)
        )
        for kind, values in expected.items()
    }


def _differences_of_weights(found: Trained, expected: Trained) -> dict[Kind, Difference]:
    weight, learned = [], []
    for row in parameter_table(expected.config.model):
        value = expected.weights[row.name]
        difference = found.weights[row.name] - value
        weight.append((float(np.abs(difference).max()), row.name))
        change = value - row.initial_value(expected.config.run.seed).numpy()
        learned.append((_norm(difference) / _norm(change), row.name))
    return {"weight": _largest(weight), "learned": _largest(learned)}


def _largest(differences: Iterable[tuple[float, str]]) -> Difference:
    size, at = max(differences, key=lambda each: (math.isnan(each[0]), each[0]))
    return Difference(size=size, at=at)


def _norm(values: np.ndarray) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))
