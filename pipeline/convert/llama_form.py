"""Decoders in the style of Llama as Hugging Face's classes have them: how their parameters and config are called there.

These classes are `LlamaForCausalLM` and what differs from it by a bias, a norm or a mask.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch

from pipeline.config.architectures import ArchitectureName
from pipeline.config.schema import ModelConfig
from pipeline.convert.activation_names import ACTIVATION_NAMES
from pipeline.convert.projections import query_key_value
from pipeline.convert.special_ids import SpecialIds
from pipeline.models.parameters import ParameterSpec

CLASSES: Mapping[ArchitectureName, str] = MappingProxyType(
    {
        "llama": "LlamaForCausalLM",
        "qwen2": "Qwen2ForCausalLM",
        "qwen3": "Qwen3ForCausalLM",
        "mistral": "MistralForCausalLM",
    }
)
FUSED_QKV = "self_attention.linear_qkv"

# A part of a decoder layer -> the parts of Hugging Face's layer that its weight, and bias, are stacked from, in order.
LAYER_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "input_norm": ("input_layernorm",),
        FUSED_QKV: ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attention.q_layernorm": ("self_attn.q_norm",),
        "self_attention.k_layernorm": ("self_attn.k_norm",),
        "self_attention.linear_proj": ("self_attn.o_proj",),
        "post_attention_norm": ("post_attention_layernorm",),
        "mlp.linear_fc1": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.linear_fc2": ("mlp.down_proj",),
    }
)
# A parameter outside of the decoder layers -> its name there. A tied head has no row, and no tensor there either.
OUTER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "embedding.word_embeddings.weight": "model.embed_tokens.weight",
        "final.norm.weight": "model.norm.weight",
        "head.output_layer.weight": "lm_head.weight",
    }
)


def to_hugging_face(row: ParameterSpec, tensor: torch.Tensor, model: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of Hugging Face's class that one parameter holds, by name; views of `tensor` where order allows."""
    if row.name in OUTER_NAMES:
        yield OUTER_NAMES[row.name], tensor
        return
    part, _, kind = row.local_name.rpartition(".")
    names = LAYER_PARTS[part]
    pieces = query_key_value(tensor, model) if part == FUSED_QKV else tensor.chunk(len(names))
    for name, piece in zip(names, pieces, strict=True):
        yield f"model.layers.{row.layer - 1}.{name}.{kind}", piece


def hugging_face_config(model: ModelConfig, dtype: torch.dtype, ids: SpecialIds) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "architectures": [CLASSES[model.architecture]],
        "model_type": model.architecture,
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "head_dim": model.head_dim,
        "hidden_act": ACTIVATION_NAMES[model.activation],
        "max_position_embeddings": model.seq_len,
        "rms_norm_eps": model.norm_epsilon,
        "rope_parameters": {"rope_theta": model.rope_theta, **_rope_scaling(model)},
        # transformers before 5, and engines of that age, look here and silently assume 10,000 and no scaling otherwise.
        "rope_theta": model.rope_theta,
        "rope_scaling": _rope_scaling(model) if model.rope_scaling != "none" else None,
        "tie_word_embeddings": model.tie_embeddings,
        "attention_dropout": model.attention_dropout,
        "initializer_range": model.init_std,
        "use_cache": True,
        "dtype": str(dtype).removeprefix("torch."),
        **_of_architecture(model),
        **ids.named(),
    }


def _rope_scaling(model: ModelConfig) -> dict[str, Any]:
    """How rotary frequencies are stretched, in the words of transformers' `modeling_rope_utils`."""
    if model.rope_scaling == "none":
        return {"rope_type": "default"}
    if model.rope_scaling == "linear":
        # Before transformers 4.43 its key was `type`.
        return {"rope_type": "linear", "type": "linear", "factor": model.rope_factor}
    return {
        "rope_type": "llama3",
        "factor": model.rope_factor,
        "low_freq_factor": model.rope_low_freq_factor,
        "high_freq_factor": model.rope_high_freq_factor,
        "original_max_position_embeddings": model.rope_original_seq_len,
    }


def _of_architecture(model: ModelConfig) -> dict[str, Any]:
    """The keys that one class has and another one has not."""
    if model.architecture == "mistral":
        return {"sliding_window": model.sliding_window}
    biases = {"llama": {"attention_bias": False, "mlp_bias": False}, "qwen3": {"attention_bias": False}}
    # Qwen's classes know windows of some layers only, from `max_window_layers` on.
    windows = {"use_sliding_window": False, "sliding_window": None, "max_window_layers": model.num_layers}
    return biases.get(model.architecture, {}) | (windows if model.architecture != "llama" else {})
