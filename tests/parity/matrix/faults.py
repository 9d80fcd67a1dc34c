"""Faults of a split run, made on purpose: each is one that DeepSpeed or megatron-core has alone, or that we could make.

None of them stops a run, and learning goes on: nothing but the matrix tells.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any
from unittest import mock

import torch

from pipeline.engine import build, staged
from pipeline.engine.engine import Engine
from pipeline.models import bert, embedding, norms, residual
from pipeline.models.parameters import ParameterTable
from pipeline.objectives.samples import IGNORED

Fault = Callable[[], AbstractContextManager[Any]]


def _without_sum_over_slices(module: Any) -> Fault:
    """Ranks that see slices keep the gradients of these slices, of whatever parameter they hold in full."""
    return lambda: mock.patch.object(module, "shared_by_slices", lambda parameter, **_: parameter)


def _without_sum_of_tied_gradients() -> AbstractContextManager[Any]:
    """Each stage updates its copy of a tied parameter by what it is used for there."""
    return mock.patch.object(staged, "_reduce_tied_gradients", return_value=None)


def _with_gradients_lost_between_stages() -> AbstractContextManager[Any]:
    """Only the hidden states' gradient goes back, not that of the tables that travel beside them, [C, N]."""

    def give_and_lose(inputs: Any) -> None:
        give(inputs)
        for tensor in inputs if isinstance(inputs, tuple) else ():
            if tensor.grad is not None and tensor.dim() == 2:
                tensor.grad.zero_()

    give = staged._give_unused_inputs_a_gradient
    return mock.patch.object(staged, "_give_unused_inputs_a_gradient", give_and_lose)


def _with_gradients_of_pairs_added_up() -> AbstractContextManager[Any]:
    """Each rank computes the loss of the pairs in full, and their gradients are added up as if they were parts."""
    gather = bert.gather_from_sequence_parallel_region
    return mock.patch.object(bert, "gather_from_sequence_parallel_region", lambda tensor, **_: gather(tensor))


def _with_padded_vocabulary() -> AbstractContextManager[Any]:
    """The padding of the vocabulary, of which each number of ranks has another one, takes part in the softmax."""

    def forward(head: embedding.Head, hidden: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        head.num_real = 2**62
        return masked(head, hidden, weight)

    masked = embedding.Head.forward
    return mock.patch.object(embedding.Head, "forward", forward)


def _with_mean_of_means() -> AbstractContextManager[Any]:
    """Each data-parallel rank divides by the labels of its own."""

    def count(engine: Engine, batches: Any) -> int:
        found = counted(engine, batches)
        engine.loss.num_labels = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches) / len(batches)
        return found

    counted = Engine._count_labels
    return mock.patch.object(Engine, "_count_labels", count)


@contextmanager
def _without_marks_of_copies() -> Iterator[None]:
    """The gradient norm counts what DeepSpeed would count: of later stages, the parameters that are split alone."""

    def initialize_unmarked(module: torch.nn.Module, table: ParameterTable, **kwargs: Any) -> None:
        initialize(module, table, **kwargs)
        for name, parameter in module.named_parameters():
            parameter.tensor_model_parallel = table.row_of(name).split_dim is not None  # type: ignore[attr-defined]

    initialize = build.initialize
    with mock.patch.object(build, "initialize", initialize_unmarked):
        yield


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "norms are not summed over slices": _without_sum_over_slices(norms),
        "biases are not summed over slices": _without_sum_over_slices(residual),
        "positions are not summed over slices": _without_sum_over_slices(embedding),
        "shared layers are not summed over slices": _without_sum_over_slices(bert),
        "tied gradients are not summed": _without_sum_of_tied_gradients,
        "tables get no gradient from later stages": _with_gradients_lost_between_stages,
        "gradients of pairs are added up": _with_gradients_of_pairs_added_up,
        "padding of the vocabulary takes part": _with_padded_vocabulary,
        "each replica takes the mean of its labels": _with_mean_of_means,
        "the norm leaves copies out": _without_marks_of_copies,
    }
)
