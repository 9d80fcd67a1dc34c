"""megatron-core's attention and feed-forward layers with the parts that this project runs them on.

Another set of parts, such as TransformerEngine's, is swapped in here.
"""

from functools import partial

import torch
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import (
    CrossAttention,
    CrossAttentionSubmodules,
    SelfAttention,
    SelfAttentionSubmodules,
)
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig

from pipeline.models.attention import SdpaCoreAttention
from pipeline.models.norms import HeadNorm
from pipeline.models.residual import dropout_of_part


def self_attention(
    config: TransformerConfig,
    *,
    layer_number: int,
    is_causal: bool,
    qk_norm: bool = False,
    window: int | None = None,
) -> SelfAttention:
    """Self-attention over the whole sequence, whose `forward` returns the output and the bias to be added to it.

    Args:
        window: a query sees so many keys up to its own, itself included; None lets it see all of them.
    """
    head_norm = HeadNorm if qk_norm else None
    return SelfAttention(
        config,
        SelfAttentionSubmodules(
            linear_qkv=ColumnParallelLinear,
            core_attention=partial(SdpaCoreAttention, window=window),
            linear_proj=RowParallelLinear,
            q_layernorm=head_norm,
            k_layernorm=head_norm,
        ),
        layer_number,
        attn_mask_type=AttnMaskType.causal if is_causal else AttnMaskType.padding,
    )


def cross_attention(config: TransformerConfig, *, layer_number: int) -> CrossAttention:
    """Attention of a decoder to the encoder's output; `forward` returns as that of `self_attention` does."""
    return CrossAttention(
        config,
        CrossAttentionSubmodules(
            linear_q=ColumnParallelLinear,
            linear_kv=ColumnParallelLinear,
            core_attention=SdpaCoreAttention,
            linear_proj=RowParallelLinear,
        ),
        layer_number,
        attn_mask_type=AttnMaskType.padding,
    )


class DroppingRowParallelLinear(RowParallelLinear):
    """A row-parallel layer before which activations are dropped; each tensor-parallel rank has its own of them."""

    def forward(self, input_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As that of megatron-core's layer."""
        rate = self.config.hidden_dropout
        return super().forward(dropout_of_part(input_, rate) if self.training and rate > 0.0 else input_)


def feed_forward(config: TransformerConfig, *, drops_inside: bool = False) -> MLP:
    """The feed-forward layer, gated where `config` says so; `forward` returns the output and the bias to be added.

    Args:
        drops_inside: dropout also before the second of its products, as T5 has it.
    """
    return MLP(
        config,
        MLPSubmodules(
            linear_fc1=ColumnParallelLinear,
            linear_fc2=DroppingRowParallelLinear if drops_inside else RowParallelLinear,
        ),
        ffn_hidden_size=config.ffn_hidden_size,
    )
