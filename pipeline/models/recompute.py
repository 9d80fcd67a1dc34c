"""Activation recomputation: the backward pass computes again what the forward pass did not keep."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from torch.utils.checkpoint import checkpoint

from pipeline.models.documents import Carried
from pipeline.models.execution import Recompute


class Recomputable(torch.nn.Module):
    """A part of a layer that keeps much for what it computes, so that it may be computed again alone.

    Attributes:
        recomputes: that is so.
    """

    recomputes = False


def recomputing(layer: type[torch.nn.Module], recompute: Recompute) -> type[torch.nn.Module]:
    """`layer`, under its name, with the backward pass computing again what `recompute` says; it takes its inputs alone.

    Its parameters keep their names.
    """
    if recompute == "none":
        return layer
    mixin = _RecomputesParts if recompute == "selective" else _RecomputesAll
    return type(layer.__name__, (mixin, layer), {})


class _RecomputesParts(torch.nn.Module):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for part in self.modules():
            if isinstance(part, Recomputable):
                part.recomputes = True


class _RecomputesAll(torch.nn.Module):
    def forward(self, inputs: Carried) -> Carried:
        forward = super().forward
        if isinstance(inputs, torch.Tensor):
            return recomputed(forward, inputs)
        return recomputed(lambda *parts: forward(parts), *inputs)  # what it keeps is freed tensor by tensor


def recomputed(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, of which only `args` are kept: the backward pass calls it again for the rest.

    Both calls draw the same random numbers, from torch's default streams and from megatron-core's.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
    """
    if not torch.is_grad_enabled():
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False, context_fn=_same_draws)


def _same_draws() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first call, which is about to be made, and the second one; torch sees to its own streams."""
    return nullcontext(), _Replay()


class _Replay(AbstractContextManager[None]):
    """Inside, megatron-core's streams stand where they stood when this was made; after it, they go on as before it."""

    def __init__(self) -> None:
        self._then = get_cuda_rng_tracker().get_states()
        self._outside: dict[str, torch.Tensor] = {}

    def __enter__(self) -> None:
        tracker = get_cuda_rng_tracker()
        self._outside = tracker.get_states()
        tracker.set_states(dict(self._then))  # the tracker writes to what it is given

    def __exit__(self, *_: object) -> None:
        get_cuda_rng_tracker().set_states(self._outside)
