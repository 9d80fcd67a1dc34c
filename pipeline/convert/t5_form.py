"""The encoder-decoder family as Hugging Face's `T5ForConditionalGeneration`: its parameters and its config there."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from pipeline.config.architectures import Activation
from pipeline.config.schema import ModelConfig
from pipeline.convert.activation_names import ACTIVATION_NAMES
from pipeline.convert.projections import query_key_value
from pipeline.convert.special_ids import SpecialIds
from pipeline.models.parameters import ParameterSpec

# A parameter of an encoder or a decoder layer -> the parts of Hugging Face's block that it is stacked from, in this
# order. `{last}` is the place of the feed-forward layer, which comes behind one or two attention layers.
BLOCK_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "input_norm.weight": ("0.layer_norm",),
        "self_attention.linear_qkv.weight": ("0.SelfAttention.q", "0.SelfAttention.k", "0.SelfAttention.v"),
        "self_attention.linear_proj.weight": ("0.SelfAttention.o",),
        "cross_attention_norm.weight": ("1.layer_norm",),
        "cross_attention.linear_q.weight": ("1.EncDecAttention.q",),
        "cross_attention.linear_kv.weight": ("1.EncDecAttention.k", "1.EncDecAttention.v"),
        "cross_attention.linear_proj.weight": ("1.EncDecAttention.o",),
        "post_attention_norm.weight": ("{last}.layer_norm",),
        "mlp.linear_fc2.weight": ("{last}.DenseReluDense.wo",),
    }
)
FC1 = "mlp.linear_fc1.weight"
GATED_PARTS = ("{last}.DenseReluDense.wi_0", "{last}.DenseReluDense.wi_1")
UNGATED_PARTS = ("{last}.DenseReluDense.wi",)
# A parameter outside of the layers -> its name there. A tied head has no row, and no tensor there either.
OUTER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "embedding.word_embeddings.weight": "shared.weight",
        "embedding.relative_attention_bias.weight": (
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        ),
        "encoder_final.norm.weight": "encoder.final_layer_norm.weight",
        "decoder_embedding.relative_attention_bias.weight": (
            "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        ),
        "decoder_final.norm.weight": "decoder.final_layer_norm.weight",
        "head.output_layer.weight": "lm_head.weight",
    }
)
# A gate with `gelu` means T5 1.1's there, which takes the hyperbolic tangent.
GATED_NAMES: Mapping[Activation, str] = MappingProxyType(
    {**ACTIVATION_NAMES, "gelu_tanh": "gelu", "gelu": "gelu_python"}
)


def to_hugging_face(row: ParameterSpec, tensor: torch.Tensor, model: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of `T5ForConditionalGeneration` that one parameter holds, by name; views where its order allows."""
    if row.name in OUTER_NAMES:
        yield OUTER_NAMES[row.name], tensor
        return
    stack, index, _ = row.name.split(".", 2)
    parts = _parts(row.local_name, model)
    pieces = _pieces(row.local_name, tensor, len(parts), model)
    last = {"encoder": 1, "decoder": 2}[stack]
    for part, piece in zip(parts, pieces, strict=True):
        yield f"{stack}.block.{index}.layer.{part.format(last=last)}.weight", piece


def _parts(local_name: str, model: ModelConfig) -> tuple[str, ...]:
    if local_name == FC1:
        return GATED_PARTS if model.gated_mlp else UNGATED_PARTS
    return BLOCK_PARTS[local_name]


def _pieces(local_name: str, tensor: torch.Tensor, num_parts: int, model: ModelConfig) -> Sequence[torch.Tensor]:
    if local_name == "self_attention.linear_qkv.weight":
        return query_key_value(tensor, model)
    if local_name == "cross_attention.linear_kv.weight":  # the rows of a head are its key and its value
        by_head = tensor.view(model.num_attention_heads, num_parts, model.head_dim, -1)
        return [part.flatten(0, 1) for part in by_head.unbind(1)]
    return tensor.chunk(num_parts)


def _feed_forward_name(model: ModelConfig) -> str:
    return f"gated-{GATED_NAMES[model.activation]}" if model.gated_mlp else ACTIVATION_NAMES[model.activation]


def hugging_face_config(model: ModelConfig, dtype: torch.dtype, ids: SpecialIds) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": model.vocab_size,
        "d_model": model.hidden_size,
        "d_kv": model.head_dim,
        "d_ff": model.ffn_hidden_size,
        "num_layers": model.num_layers,
        "num_decoder_layers": model.num_decoder_layers,
        "num_heads": model.num_attention_heads,
        "relative_attention_num_buckets": model.num_relative_buckets,
        "relative_attention_max_distance": model.max_relative_distance,
        "feed_forward_proj": _feed_forward_name(model),
        "layer_norm_epsilon": model.norm_epsilon,
        "dropout_rate": model.hidden_dropout,
        "initializer_factor": model.init_std,
        # Its class takes this for whether the decoder's output is scaled; an output layer of its own is read where the
        # weights have one.
        "tie_word_embeddings": model.tie_embeddings,
        "decoder_start_token_id": ids.pad,
        "use_cache": True,
        "dtype": str(dtype).removeprefix("torch."),
        **ids.named(),
    }
