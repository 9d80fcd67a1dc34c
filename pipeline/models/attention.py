"""Core attention on torch's own kernels, as a plug for megatron-core's `SelfAttention`.

Dims: S sequence, B batch, N query heads, G key/value heads, D head.
"""

from typing import Any

import torch
from megatron.core.transformer.enums import AttnMaskType
from torch.nn.functional import scaled_dot_product_attention

from pipeline.cpu import product_dtype


class SdpaCoreAttention(torch.nn.Module):
    """Softmax attention by `torch.nn.functional.scaled_dot_product_attention`, which groups queries by itself."""

    def __init__(self, *, softmax_scale: float | None = None, **_: Any) -> None:
        super().__init__()
        self.softmax_scale = softmax_scale

    def forward(
        self,
        query_SBND: torch.Tensor,
        key_SBGD: torch.Tensor,
        value_SBGD: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        attn_mask_type: AttnMaskType,
        **_: Any,
    ) -> torch.Tensor:
        """Attention of each query to the keys, shape [S, B, N * D].

        Without `attention_mask`, bool, shape [B, 1, S, S], a causal mask is the kernel's own.
        """
        dtype = product_dtype(query_SBND)
        query_BNSD, key_BGSD, value_BGSD = (
            tensor.permute(1, 2, 0, 3).to(dtype) for tensor in (query_SBND, key_SBGD, value_SBGD)
        )
        output_BNSD = scaled_dot_product_attention(
            query_BNSD,
            key_BGSD,
            value_BGSD,
            attn_mask=attention_mask,
            is_causal=attn_mask_type is AttnMaskType.causal and attention_mask is None,
            scale=self.softmax_scale,
            enable_gqa=query_BNSD.shape[1] != key_BGSD.shape[1],
        )
        return output_BNSD.permute(2, 0, 1, 3).flatten(2).to(query_SBND.dtype)
