"""Where numbers stop being finite: the module, rank and micro-batch at which a loss or gradient went wrong."""

import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state

from pipeline import distributed
from pipeline.engine.engine import Engine
from pipeline.engine.replicas import own_part
from pipeline.engine.staged import StagedModel
from pipeline.models.parameters import ParameterTable

SHOWN = 3  # parameters that a message names


@dataclass(frozen=True, order=True, kw_only=True)
class Output:
    """An output that is not finite. Of several, the least is the first one.

    Attributes:
        micro_batch: of its data-parallel rank, from 0.
        stage: of the pipeline.
        order: of the module among those of its stage, by when they end.
        data_rank: which copy of the model computed it.
        name: of the module, or "the loss".
    """

    micro_batch: int
    stage: int
    order: int
    rank: int
    data_rank: int
    name: str
    host: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is not finite.

    Attributes:
        output: the first output of the forward pass, on any rank; None if all are finite.
        weights: logical name -> the ranks on which the parameter is not finite.
        gradients: likewise, of the last step, in the order of the parameter table.
    """

    output: Output | None
    weights: Mapping[str, Sequence[int]]
    gradients: Mapping[str, Sequence[int]]

    def __str__(self) -> str:
        """Some sentences for people."""
        weights = f" Weights are not finite themselves: {_listed(self.weights)}." if self.weights else ""
        return f"{self._where()}{weights}"

    def _where(self) -> str:
        if output := self.output:
            place = f"rank {output.rank} ({output.host}), in micro-batch {output.micro_batch}"
            return f"The first output that is not finite is that of {output.name} on {place}."
        found = "Run again, every output of the forward pass is finite"
        if self.gradients:
            # The backward pass meets the last layer first.
            name, ranks = list(self.gradients.items())[-1]
            return (
                f"{found}: it was the backward pass, first at the gradient of {name} on {distributed.in_words(ranks)}."
            )
        return f"{found}, and so is every gradient: their norm is too large, or a fault of a machine came and went."


def diagnose(
    engine: Engine, table: ParameterTable, layer_names: Sequence[str], forward: Callable[[], object]
) -> Diagnosis:
    """What is not finite in `forward()`, which runs micro-batches through the engine; every rank calls this.

    Args:
        layer_names: of all pipeline layers, in their order.
    """
    with _watching(engine, layer_names) as outputs:
        forward()
    module = engine.deepspeed.module
    bad_weights = [name for name, weight in module.named_parameters() if not own_part(weight).isfinite().all()]
    gathered = distributed.all_gathered((outputs, bad_weights, engine.gradients.not_finite))
    return Diagnosis(
        output=min((output for found, _, _ in gathered for output in found), default=None),
        weights=_ranks_by_name(table, [names for _, names, _ in gathered]),
        gradients=_ranks_by_name(table, [names for _, _, names in gathered]),
    )


@contextmanager
def _watching(engine: Engine, layer_names: Sequence[str]) -> Iterator[list[Output]]:
    """The first output of this rank in the block that is not finite, if there is one."""
    watch = _Watch()
    handles = []
    layers = list(_layers(engine.deepspeed.module))
    for position, (index, layer) in enumerate(layers):
        if position == 0:
            handles.append(layer.register_forward_pre_hook(lambda *_: watch.start_micro_batch()))
        for name, module in layer.named_modules(prefix=layer_names[index]):
            handles.append(module.register_forward_hook(partial(watch.see_output, name)))
    engine.guarded_loss.observer = partial(watch.see, "the loss")
    try:
        yield watch.found
    finally:
        engine.guarded_loss.observer = None
        for handle in handles:
            handle.remove()


class _Watch:
    """Sees the outputs of one rank's modules, micro-batch by micro-batch."""

    def __init__(self) -> None:
        self.found: list[Output] = []
        self._micro_batch = -1
        self._order = 0

    def start_micro_batch(self) -> None:
        self._micro_batch += 1
        self._order = 0

    def see_output(self, name: str, _module: torch.nn.Module, _inputs: Any, outputs: Any) -> None:
        self.see(name, outputs)

    def see(self, name: str, outputs: Any) -> None:
        self._order += 1
        if self.found or all(tensor.isfinite().all() for tensor in _tensors(outputs)):
            return
        self.found.append(
            Output(
                micro_batch=self._micro_batch,
                stage=parallel_state.get_pipeline_model_parallel_rank(),
                order=self._order,
                rank=torch.distributed.get_rank(),
                data_rank=parallel_state.get_data_parallel_rank(),
                name=name,
                host=socket.gethostname(),
            )
        )


def _tensors(outputs: Any) -> Iterator[torch.Tensor]:
    """Those of floating point in what a module returns."""
    if isinstance(outputs, torch.Tensor):
        if outputs.is_floating_point():
            yield outputs
    elif isinstance(outputs, tuple | list):
        for part in outputs:
            yield from _tensors(part)


def _layers(module: torch.nn.Module) -> Iterator[tuple[int, torch.nn.Module]]:
    """This rank's pipeline layers in the order in which they run, each with its index among all."""
    if isinstance(module, StagedModel):
        for index, function in enumerate(module.forward_funcs, start=module._local_start):
            yield index, getattr(function, "_layer", function)  # one that reads another one's weight is wrapped
    else:
        for name, layer in module.named_children():
            yield int(name), layer


def _ranks_by_name(table: ParameterTable, module_names: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Logical name -> the ranks that name it, in the order of the table; `module_names` has a list for each rank."""
    ranks = defaultdict(list)
    for rank, names in enumerate(module_names):
        for name in names:
            ranks[table.row_of(name).name].append(rank)
    return {row.name: ranks[row.name] for row in table if row.name in ranks}


def _listed(names: Mapping[str, Sequence[int]]) -> str:
    told = [f"{name} on {distributed.in_words(ranks)}" for name, ranks in names.items()]
    return ", ".join(told[:SHOWN]) + (f" and {len(told) - SHOWN} more" if len(told) > SHOWN else "")
