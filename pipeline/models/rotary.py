"""Rotary position embedding: the angle of each position and dim. Dims: S positions, D head."""

from functools import lru_cache

import torch


class Rotary:
    """Angles of rotary position embedding, shared by all layers; no buffer, so that they stay fp32 in a bf16 model.

    Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021; halves arranged as Hugging
    Face's Llama has them.
    """

    def __init__(self, *, head_dim: int, theta: float) -> None:
        self.head_dim = head_dim
        self.theta = theta
        self._angles = lru_cache(maxsize=2)(self._compute)

    def __call__(self, length: int, device: torch.device) -> torch.Tensor:
        """The angles in radians of positions 0 to `length` - 1, fp32, shape [S, 1, 1, D]."""
        return self._angles(length, device)

    def _compute(self, length: int, device: torch.device) -> torch.Tensor:
        dims = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=device)
        frequencies = 1.0 / (self.theta ** (dims / self.head_dim))
        angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies)
        return torch.cat((angles, angles), dim=-1)[:, None, None, :]
