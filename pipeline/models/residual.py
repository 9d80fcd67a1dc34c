"""What a layer's output goes through before it joins the residual stream. Dims: s slice of the sequence, B, H."""

import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import dropout

from pipeline.models.norms import shared_by_slices


class HiddenDropout(torch.nn.Module):
    """Dropout of the residual stream's activations.

    Tensor-parallel ranks draw the same mask, since they hold the same activations, and masks of their own where
    sequence parallelism gives each a slice.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.rate = config.hidden_dropout
        self.is_sliced = config.sequence_parallel

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`hidden` with a share of it set to 0 in training, and the rest scaled up; same shape."""
        if not self.training or self.rate == 0.0:
            return hidden
        if not self.is_sliced:
            return dropout(hidden, self.rate)
        return dropout_of_part(hidden, self.rate)


def dropout_of_part(part: torch.Tensor, rate: float) -> torch.Tensor:
    """Dropout of activations that are split over the tensor-parallel ranks, each of which draws for its own part."""
    with get_cuda_rng_tracker().fork():
        return dropout(part, rate)


class ResidualAdd(torch.nn.Module):
    """Adds the output of attention or of the feed-forward layer to the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dropout = HiddenDropout(config)
        self.is_sliced = config.sequence_parallel

    def forward(self, residual: torch.Tensor, output: tuple[torch.Tensor, torch.Tensor | None]) -> torch.Tensor:
        """The stream after it, [s, B, H]; `output` comes with the bias that megatron-core leaves to be added."""
        hidden, bias = output
        if bias is not None:
            hidden = hidden + shared_by_slices(bias, is_sliced=self.is_sliced)
        return residual + self.dropout(hidden)
