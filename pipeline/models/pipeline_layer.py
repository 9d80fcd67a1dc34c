"""A model as a list of pipeline layers: descriptions that any engine can build, and the unsplit stack of them."""

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.models.execution import Recompute
from pipeline.models.recompute import recomputing


class PipelineLayer:
    """One layer of the list, not built yet: `module(*args, **kwargs)`.

    Args:
        recompute: what of it the backward pass computes again, for Transformer layers.

    Attributes:
        weight_from: index of the layer whose `weight` this one is called with; None where it uses its own alone.
        weight_holder: a layer with that `weight` and no other parameter, for pipeline stages that only read it.
    """

    def __init__(
        self,
        module: type[torch.nn.Module],
        *args: Any,
        weight_from: int | None = None,
        weight_holder: "PipelineLayer | None" = None,
        recompute: Recompute = "none",
        **kwargs: Any,
    ) -> None:
        self.module = recomputing(module, recompute)
        self.args = args
        self.kwargs = kwargs
        self.weight_from = weight_from
        self.weight_holder = weight_holder

    def build(self) -> torch.nn.Module:
        return self.module(*self.args, **self.kwargs)


class LayerStack(torch.nn.Module):
    """All layers on one rank, under the names that DeepSpeed's pipeline gives: `3.mlp.linear_fc1.weight`."""

    def __init__(self, layers: Sequence[PipelineLayer]) -> None:
        super().__init__()
        self.weight_from = [layer.weight_from for layer in layers]
        for index, layer in enumerate(layers):
            self.add_module(str(index), layer.build())

    def forward(self, inputs: Any) -> Any:
        """The last layer's output, the first layer being given `inputs`: a tensor or a tuple of tensors each."""
        outputs = inputs
        for index, source in enumerate(self.weight_from):
            layer = self.get_submodule(str(index))
            outputs = layer(outputs) if source is None else layer(outputs, self.get_submodule(str(source)).weight)
        return outputs
