"""Rotary position embedding: the angle of each position and dim. Dims: S positions, D head."""

import math
from functools import lru_cache

import torch

from pipeline.config.schema import ModelConfig


class Rotary:
    """Angles of rotary position embedding; no buffer, so that they stay fp32 in a bf16 model.

    One object serves all layers of a model, which then compute the angles once.

    Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021; halves arranged as Hugging
    Face's Llama has them.
    """

    def __init__(self, model: ModelConfig) -> None:
        self.model = model
        self._angles = lru_cache(maxsize=2)(self._compute)

    def __call__(self, length: int, device: torch.device) -> torch.Tensor:
        """The angles in radians of positions 0 to `length` - 1, fp32, shape [S, 1, 1, D]."""
        return self._angles(length, device)

    def _compute(self, length: int, device: torch.device) -> torch.Tensor:
        positions = torch.arange(length, dtype=torch.float32, device=device)
        angles = torch.outer(positions, frequencies(self.model).to(device))
        return torch.cat((angles, angles), dim=-1)[:, None, None, :]


def frequencies(model: ModelConfig) -> torch.Tensor:
    """The angle in radians from one position to the next for each pair of dims, fp32, shape [D / 2], on the CPU.

    They equal those of transformers' `modeling_rope_utils` to the bit, as far positions multiply what they differ by.

    Source: linear: Chen et al., "Extending Context Window of Large Language Models via Positional Interpolation", 2023;
    llama3: the code that was published with Llama 3.1.
    """
    dims = torch.arange(0, model.head_dim, 2, dtype=torch.float32)
    plain = 1.0 / (model.rope_theta ** (dims / model.head_dim))
    if model.rope_scaling == "none":
        return plain
    if model.rope_scaling == "linear":
        return plain / model.rope_factor
    kept = _share_kept(plain, model)
    return (1 - kept) * plain / model.rope_factor + kept * plain


def _share_kept(plain: torch.Tensor, model: ModelConfig) -> torch.Tensor:
    """How far each frequency stays as it is: 1 for short wavelengths, 0 for those that are stretched in full."""
    low, high = model.rope_low_freq_factor, model.rope_high_freq_factor
    wavelengths = 2 * math.pi / plain
    return ((model.rope_original_seq_len / wavelengths - low) / (high - low)).clamp(0.0, 1.0)
