"""Decoders in the style of GPT-2 as Hugging Face's `GPT2LMHeadModel`: how parameters and config are called there."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch

from pipeline.config.schema import ModelConfig
from pipeline.convert.activation_names import ACTIVATION_NAMES
from pipeline.convert.projections import query_key_value
from pipeline.convert.special_ids import SpecialIds
from pipeline.models.parameters import ParameterSpec

FUSED_QKV = "self_attention.linear_qkv"

# A part of a decoder layer -> its name in Hugging Face's.
LAYER_PARTS: Mapping[str, str] = MappingProxyType(
    {
        "input_norm": "ln_1",
        FUSED_QKV: "attn.c_attn",
        "self_attention.linear_proj": "attn.c_proj",
        "post_attention_norm": "ln_2",
        "mlp.linear_fc1": "mlp.c_fc",
        "mlp.linear_fc2": "mlp.c_proj",
    }
)
# A parameter outside of the decoder layers -> its name there. A tied head has no row, and no tensor there either.
OUTER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "embedding.word_embeddings.weight": "transformer.wte.weight",
        "embedding.positions.weight": "transformer.wpe.weight",
        "final.norm.weight": "transformer.ln_f.weight",
        "final.norm.bias": "transformer.ln_f.bias",
        "head.output_layer.weight": "lm_head.weight",
    }
)


def to_hugging_face(row: ParameterSpec, tensor: torch.Tensor, model: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensor of `GPT2LMHeadModel` that one parameter is, with its name; a view of `tensor` where its order allows.

    Queries, keys and values stand one after the other there, and its layers' matrices have the inputs first.
    """
    if row.name in OUTER_NAMES:
        yield OUTER_NAMES[row.name], tensor
        return
    part, _, kind = row.local_name.rpartition(".")
    ordered = torch.cat(list(query_key_value(tensor, model))) if part == FUSED_QKV else tensor
    yield f"transformer.h.{row.layer - 1}.{LAYER_PARTS[part]}.{kind}", ordered.t() if tensor.dim() == 2 else ordered


def hugging_face_config(model: ModelConfig, dtype: torch.dtype, ids: SpecialIds) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model.vocab_size,
        "n_embd": model.hidden_size,
        "n_inner": model.ffn_hidden_size,
        "n_layer": model.num_layers,
        "n_head": model.num_attention_heads,
        "n_positions": model.seq_len,
        "n_ctx": model.seq_len,  # the name that engines of other languages read
        "activation_function": ACTIVATION_NAMES[model.activation],
        "layer_norm_epsilon": model.norm_epsilon,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "tie_word_embeddings": model.tie_embeddings,
        "resid_pdrop": model.hidden_dropout,
        "embd_pdrop": model.hidden_dropout,
        "attn_pdrop": model.attention_dropout,
        "initializer_range": model.init_std,
        "use_cache": True,
        "dtype": str(dtype).removeprefix("torch."),
        **ids.named(),
    }
