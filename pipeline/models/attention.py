"""Core attention on torch's own kernels, as a plug for megatron-core's attention layers.

Dims: Q query positions, K key positions, B batch, N query heads, G key/value heads, D head.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, lru_cache
from typing import Any

import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from pipeline.cpu import product_dtype
from pipeline.models.key_ranges import BLOCK, KeyRanges, in_window
from pipeline.models.recompute import Recomputable, recomputed

SMALLEST_FLEX_HEAD = 16  # width of a head; FlexAttention's kernel multiplies tiles of at least so many columns


class SdpaCoreAttention(Recomputable):
    """Softmax attention by torch's kernels, which group queries by themselves.

    On a GPU documents and windows are left to FlexAttention, which skips the blocks that no query sees and needs no
    square mask. It knows no dropout: with that, and on a CPU, there is a square mask.

    Args:
        window: a query of causal attention sees so many keys up to its own, itself included; None sees all of them.
    """

    def __init__(
        self, config: TransformerConfig, *, softmax_scale: float | None = None, window: int | None = None, **_: Any
    ) -> None:
        super().__init__()
        self.softmax_scale = softmax_scale
        self.dropout = config.attention_dropout
        self.window = window

    def forward(
        self,
        query_QBND: torch.Tensor,
        key_KBGD: torch.Tensor,
        value_KBGD: torch.Tensor,
        attention_mask: torch.Tensor | KeyRanges | None,
        *,
        attn_mask_type: AttnMaskType,
        attention_bias: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Attention of each query to the keys, shape [Q, B, N * D].

        Args:
            attention_mask: bool, [B, 1, 1 or Q, K], true where a query sees a key; or ranges of keys, for causal
                attention. Where it is None, a query sees the keys up to its own position if the mask type is causal,
                and all of them if not.
            attention_bias: added to the scores, [1, N, Q, K].
        """
        is_causal = False
        if attn_mask_type is AttnMaskType.causal and not isinstance(attention_mask, torch.Tensor):
            is_causal = True
            attention_mask = in_window(attention_mask, self.window, len(key_KBGD), key_KBGD.device)
        args = query_QBND, key_KBGD, value_KBGD, attention_mask, attention_bias, is_causal
        return recomputed(self._attend, *args) if self.recomputes else self._attend(*args)

    def _attend(
        self,
        query_QBND: torch.Tensor,
        key_KBGD: torch.Tensor,
        value_KBGD: torch.Tensor,
        mask: torch.Tensor | KeyRanges | None,
        bias: torch.Tensor | None,
        is_causal: bool,
    ) -> torch.Tensor:
        dtype = product_dtype(query_QBND)
        query_BNQD, key_BGKD, value_BGKD = (
            tensor.permute(1, 2, 0, 3).to(dtype) for tensor in (query_QBND, key_KBGD, value_KBGD)
        )
        drops = self.training and self.dropout > 0.0
        shared: dict[str, Any] = {"scale": self.softmax_scale, "enable_gqa": query_BNQD.shape[1] != key_BGKD.shape[1]}
        if isinstance(mask, KeyRanges) and bias is None and not drops and _suits_flex(query_BNQD):
            output_BNQD = _compiled_flex()(query_BNQD, key_BGKD, value_BGKD, block_mask=mask.block_mask, **shared)
        else:
            mask, is_causal = _for_sdpa(mask, bias, query_BNQD, is_causal=is_causal)
            with get_cuda_rng_tracker().fork() if drops else nullcontext():  # each tensor-parallel rank has own heads
                output_BNQD = scaled_dot_product_attention(
                    query_BNQD,
                    key_BGKD,
                    value_BGKD,
                    attn_mask=mask,
                    dropout_p=self.dropout if drops else 0.0,
                    is_causal=is_causal,
                    **shared,
                )
        return output_BNQD.permute(2, 0, 1, 3).flatten(2).to(query_QBND.dtype)


def seen_keys(mask_BK: torch.Tensor) -> torch.Tensor:
    """Which keys of an encoder a query sees, bool, [B, 1, 1, K], for a mask that is 0 at padding."""
    return mask_BK[:, None, None, :] != 0


def _suits_flex(query_BNQD: torch.Tensor) -> bool:
    """Whether there is a kernel for it, and more than one block, of which some may be left out."""
    _, _, length, head_dim = query_BNQD.shape
    return query_BNQD.device.type == "cuda" and length > BLOCK and head_dim >= SMALLEST_FLEX_HEAD


@cache
def _compiled_flex() -> Callable[..., torch.Tensor]:
    """FlexAttention's own kernel: not compiled, it makes a square of scores."""
    return torch.compile(flex_attention, fullgraph=True, dynamic=False)


def _for_sdpa(
    mask: torch.Tensor | KeyRanges | None, bias: torch.Tensor | None, query_BNQD: torch.Tensor, *, is_causal: bool
) -> tuple[torch.Tensor | None, bool]:
    """What is added to the scores, or true where they count, and whether the kernel is to mask what comes later."""
    seen = mask.square_mask if isinstance(mask, KeyRanges) else mask
    if bias is None:
        return seen, is_causal and seen is None
    if is_causal and seen is None:
        seen = _up_to_itself(bias.shape[-2], bias.device)
    bias = bias.to(query_BNQD.dtype)
    return (bias if seen is None else bias.masked_fill(~seen, torch.finfo(bias.dtype).min)), False


@lru_cache(maxsize=2)
@torch.inference_mode(mode=False)
def _up_to_itself(length: int, device: torch.device) -> torch.Tensor:
    """The square mask of causal attention, bool, [Q, K]."""
    return torch.ones((length, length), dtype=torch.bool, device=device).tril()
