"""The decoder family as Hugging Face's `LlamaForCausalLM`: how its parameters and its config are called there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from pipeline.config.schema import ModelConfig
from pipeline.models.parameters import ParameterSpec

FUSED_QKV = "self_attention.linear_qkv.weight"

# A parameter of a decoder layer -> the parts of Hugging Face's layer that it is stacked from, in this order.
LAYER_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "input_norm.weight": ("input_layernorm",),
        FUSED_QKV: ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attention.linear_proj.weight": ("self_attn.o_proj",),
        "post_attention_norm.weight": ("post_attention_layernorm",),
        "mlp.linear_fc1.weight": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.linear_fc2.weight": ("mlp.down_proj",),
    }
)
# A parameter outside of the decoder layers -> its name there. A tied head has no row, and no tensor there either.
OUTER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "embedding.word_embeddings.weight": "model.embed_tokens.weight",
        "final_norm.weight": "model.norm.weight",
        "head.output_layer.weight": "lm_head.weight",
    }
)


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """The token ids that a model's config names; None where the tokenizer has no such token."""

    bos: int | None = None
    eos: int | None = None
    pad: int | None = None

    def named(self) -> dict[str, int | None]:
        """As the keys of `config.json` and `generation_config.json`."""
        return {"bos_token_id": self.bos, "eos_token_id": self.eos, "pad_token_id": self.pad}


def to_hugging_face(row: ParameterSpec, tensor: torch.Tensor, model: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of `LlamaForCausalLM` that one parameter holds, by name; views of `tensor` where its order allows."""
    if row.name in OUTER_NAMES:
        yield OUTER_NAMES[row.name], tensor
        return
    parts = LAYER_PARTS[row.local_name]
    pieces = _projections(tensor, model) if row.local_name == FUSED_QKV else tensor.chunk(len(parts))
    for part, piece in zip(parts, pieces, strict=True):
        yield f"model.layers.{row.layer - 1}.{part}.weight", piece


def _projections(fused: torch.Tensor, model: ModelConfig) -> Sequence[torch.Tensor]:
    """Query, key and value matrices, out of rows grouped by key/value head: its query heads, its key, its value."""
    queries_per_group = model.num_attention_heads // model.num_key_value_heads
    groups = fused.view(model.num_key_value_heads, queries_per_group + 2, model.head_dim, -1)
    blocks = groups.split([queries_per_group, 1, 1], dim=1)
    return [block.flatten(0, 2) for block in blocks]


def hugging_face_config(model: ModelConfig, *, dtype: torch.dtype, ids: SpecialIds) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": model.seq_len,
        "rms_norm_eps": model.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        # transformers before 5, and engines of that age, look here and silently assume 10,000 otherwise.
        "rope_theta": model.rope_theta,
        "tie_word_embeddings": model.tie_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": model.init_std,
        "use_cache": True,
        "dtype": str(dtype).removeprefix("torch."),
        **ids.named(),
    }
