"""A model as a list of pipeline layers: descriptions that any engine can build, and the unsplit stack of them."""

from collections.abc import Sequence
from typing import Any

import torch


class PipelineLayer:
    """One layer of the list, not built yet: `module(*args, **kwargs)`.

    Attributes:
        is_block: one of the repeated layers, by which a model is cut into pipeline stages of equal cost.
        weight_from: index of the layer whose `weight` this one is called with; None where it uses its own alone.
    """

    def __init__(
        self,
        module: type[torch.nn.Module],
        *args: Any,
        is_block: bool = False,
        weight_from: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.module = module
        self.args = args
        self.kwargs = kwargs
        self.is_block = is_block
        self.weight_from = weight_from

    def build(self) -> torch.nn.Module:
        return self.module(*self.args, **self.kwargs)


class LayerStack(torch.nn.Module):
    """All layers on one rank, under the names that DeepSpeed's pipeline gives: `3.mlp.linear_fc1.weight`."""

    def __init__(self, layers: Sequence[PipelineLayer]) -> None:
        super().__init__()
        self.weight_from = [layer.weight_from for layer in layers]
        for index, layer in enumerate(layers):
            self.add_module(str(index), layer.build())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The last layer's output, the first layer being given `inputs`."""
        outputs = inputs
        for index, source in enumerate(self.weight_from):
            layer = self.get_submodule(str(index))
            outputs = layer(outputs) if source is None else layer(outputs, self.get_submodule(str(source)).weight)
        return outputs
