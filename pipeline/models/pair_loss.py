"""The loss of an encoder that also judges pairs of segments. Dims: S sequence, B batch, V this rank's vocabulary."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from pipeline.models.losses import TokenLoss

PARTS = ("masked_loss", "pairs_loss")


class PairLoss(TokenLoss):
    """Cross-entropy of the hidden tokens, and of the pairs where there are any; fp32 scalar, nats.

    Each hidden token of the global batch counts as much as any other, and so does each pair; the means of both are
    added.

    Source: Devlin et al., "BERT", 2019, appendix A.2.
    """

    def __call__(self, outputs: Any, labels: Any) -> torch.Tensor:
        """The loss of one micro-batch.

        Args:
            outputs: logits of the tokens, [S, B, V], or a tuple of these and the logits of the pairs, [B, 2].
            labels: those of the tokens, [B, S], or a tuple of these and those of the pairs, [B].
        """
        if isinstance(outputs, torch.Tensor):
            return super().__call__(outputs, labels)
        (logits_SBV, logits_B2), (labels_BS, labels_B) = outputs, labels
        masked = super().__call__(logits_SBV, labels_BS)
        pairs = cross_entropy(logits_B2.float(), labels_B)
        for name, part in zip(PARTS, (masked, pairs), strict=True):
            self.parts[name] = self.parts.get(name, 0) + part.detach()
        return masked + pairs
