"""The encoder family as Hugging Face's `BertForPreTraining`, or `BertForMaskedLM` where it does not judge pairs."""

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

# A part of an encoder layer -> the parts of Hugging Face's layer that it is stacked from, in this order.
LAYER_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        FUSED_QKV: ("attention.self.query", "attention.self.key", "attention.self.value"),
        "self_attention.linear_proj": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
        "mlp.linear_fc1": ("intermediate.dense",),
        "mlp.linear_fc2": ("output.dense",),
        "mlp_norm": ("output.LayerNorm",),
    }
)
# A part outside of the encoder layers -> its name there. The head's weight is tied: no tensor here, nor there. Its bias
# is tied there to one with another name, under which transformers saves it.
OUTER_PARTS: Mapping[str, str] = MappingProxyType(
    {
        "embedding.word_embeddings": "bert.embeddings.word_embeddings",
        "embedding.positions": "bert.embeddings.position_embeddings",
        "embedding.token_types": "bert.embeddings.token_type_embeddings",
        "embedding.norm": "bert.embeddings.LayerNorm",
        "transform.dense": "cls.predictions.transform.dense",
        "transform.norm": "cls.predictions.transform.LayerNorm",
        "transform.pair_head.pooler": "bert.pooler.dense",
        "transform.pair_head.classifier": "cls.seq_relationship",
        "head.output_layer": "cls.predictions",
    }
)


def to_hugging_face(row: ParameterSpec, tensor: torch.Tensor, model: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of Hugging Face's class that one parameter holds, by name; views where its order allows."""
    part, _, kind = row.name.rpartition(".")
    if part in OUTER_PARTS:
        yield f"{OUTER_PARTS[part]}.{kind}", tensor
        return
    local_part = row.local_name.removesuffix(f".{kind}")
    pieces = query_key_value(tensor, model) if local_part == FUSED_QKV else [tensor]
    for name, piece in zip(LAYER_PARTS[local_part], pieces, strict=True):
        yield f"bert.encoder.layer.{row.layer - 1}.{name}.{kind}", piece


def hugging_face_config(model: ModelConfig, dtype: torch.dtype, ids: SpecialIds) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "architectures": ["BertForPreTraining" if model.pair_head else "BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "intermediate_size": model.ffn_hidden_size,
        "hidden_act": ACTIVATION_NAMES[model.activation],
        "hidden_dropout_prob": model.hidden_dropout,
        "attention_probs_dropout_prob": model.attention_dropout,
        "max_position_embeddings": model.seq_len,
        "type_vocab_size": model.num_token_types,
        "layer_norm_eps": model.norm_epsilon,
        "initializer_range": model.init_std,
        "tie_word_embeddings": True,
        "dtype": str(dtype).removeprefix("torch."),
        **ids.named(),
    }
