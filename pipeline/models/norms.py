"""Norms over the hidden dim, each as Hugging Face computes it. Dims: H hidden."""

import torch
from megatron.core.tensor_parallel import copy_to_tensor_model_parallel_region
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import layer_norm

Norm = torch.nn.Module


def shared_by_slices(parameter: torch.Tensor, *, is_sliced: bool) -> torch.Tensor:
    """A parameter that every tensor-parallel rank holds in full but uses on its own slice of the activations.

    Its gradient is summed over these ranks, which neither megatron-core's layers nor DeepSpeed do.
    """
    return copy_to_tensor_model_parallel_region(parameter) if is_sliced else parameter


class RMSNorm(torch.nn.Module):
    """Root-mean-square norm as Hugging Face's Llama computes it: statistics in fp32, scaled in the input's dtype.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.

    Args:
        is_sliced: each tensor-parallel rank sees its own slice of the activations: of the sequence, or of the heads.
    """

    def __init__(self, size: int, *, epsilon: float, is_sliced: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))
        self.epsilon = epsilon
        self.is_sliced = is_sliced

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalized over the last dim, same shape and dtype."""
        wide = hidden.float()
        normalized = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return shared_by_slices(self.weight, is_sliced=self.is_sliced) * normalized.to(hidden.dtype)


class LayerNorm(torch.nn.Module):
    """Layer norm with weight and bias, by torch's own kernel.

    Args:
        is_sliced: as of `RMSNorm`.
    """

    def __init__(self, size: int, *, epsilon: float, is_sliced: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))
        self.bias = torch.nn.Parameter(torch.zeros(size))
        self.epsilon = epsilon
        self.is_sliced = is_sliced

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalized over the last dim, same shape and dtype."""
        weight, bias = (shared_by_slices(one, is_sliced=self.is_sliced) for one in (self.weight, self.bias))
        return layer_norm(hidden, self.weight.shape, weight, bias, self.epsilon)


def norm_over_hidden(config: TransformerConfig) -> Norm:
    """The norm of the residual stream, [s, B, H], which sequence parallelism slices."""
    kind = RMSNorm if config.normalization == "RMSNorm" else LayerNorm
    return kind(config.hidden_size, epsilon=config.layernorm_epsilon, is_sliced=config.sequence_parallel)


class HeadNorm(RMSNorm):
    """The norm of each query or key head, [S, B, heads, D], of which every tensor-parallel rank has its own.

    The signature is that by which megatron-core's `SelfAttention` builds its `q_layernorm`; a function in its place
    would be called as the norm itself.
    """

    def __init__(self, *, hidden_size: int, config: TransformerConfig, eps: float) -> None:
        super().__init__(hidden_size, epsilon=eps, is_sliced=config.tensor_model_parallel_size > 1)
