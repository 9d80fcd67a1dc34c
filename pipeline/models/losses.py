"""Logits to the loss of one micro-batch. Dims: S sequence, B batch, V this rank's vocabulary."""

from typing import Any

import torch
from megatron.core.tensor_parallel import vocab_parallel_cross_entropy

from pipeline.objectives.samples import IGNORED


class TokenLoss:
    """Cross-entropy in nats per label, fp32 scalar; each tensor-parallel rank holds its slice of the logits.

    Labels that are IGNORED do not count. The mean of several micro-batches' losses is the mean over all their labels
    if `num_labels` is what each of them has on average.

    Attributes:
        parts: of a loss that is a sum, the sum of each part over the micro-batches since it was last emptied.
    """

    def __init__(self) -> None:
        self.num_labels = 1.0
        self.parts: dict[str, torch.Tensor] = {}

    def __call__(self, logits_SBV: Any, labels_BS: Any) -> torch.Tensor:
        """The loss for logits of shape [S, B, V] and labels of shape [B, S]; other losses take tuples of tensors."""
        labels_SB = labels_BS.transpose(0, 1).contiguous()
        losses_SB = vocab_parallel_cross_entropy(logits_SBV, labels_SB)
        return (losses_SB * (labels_SB != IGNORED)).sum() / self.num_labels
