"""What each pipeline layer computes for one sample, from the run config alone.

These are the operations of the model, whatever the hardware does: products of matrices alone, a multiply and an add
being two; a score counts where its query sees its key. What recomputation computes again does not count, nor does the
padding of the vocabulary; all positions of a sample count as tokens of one document.

Source: Chowdhery et al., "PaLM", 2022, appendix B (model FLOPs utilization); masked scores do not count here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.config.sample import denoising
from pipeline.config.schema import ModelConfig, RunConfig


@dataclass(frozen=True)
class LayerFlops:
    """One pipeline layer: its logical name, as in the parameter table, and the operations of its forward pass."""

    name: str
    flops: int


def layer_flops(config: RunConfig) -> list[LayerFlops]:
    """The pipeline layers of the run's model, in their order."""
    layers = {"gpt": _gpt, "bert": _bert, "t5": _t5}[config.model.family]
    return list(layers(config))


def training_flops(config: RunConfig) -> int:
    """The operations of one sample's forward and backward pass, which computes two products for each of the former's.

    Each product of a matrix and activations needs a gradient of both: no layer reads inputs that need none but the
    embeddings, which are looked up.
    """
    return 3 * sum(layer.flops for layer in layer_flops(config))


def _gpt(config: RunConfig) -> Iterator[LayerFlops]:
    model = config.model
    yield LayerFlops("embedding", 0)
    block = _self_attention(model, model.seq_len, num_causal_scores(model.seq_len, model.sliding_window))
    block += _feed_forward(model, model.seq_len)
    for index in range(model.num_layers):
        yield LayerFlops(f"layers.{index}", block)
    yield LayerFlops("final", 0)
    yield LayerFlops("head", _output_layer(model, model.seq_len))


def _bert(config: RunConfig) -> Iterator[LayerFlops]:
    model = config.model
    yield LayerFlops("embedding", 0)
    block = _self_attention(model, model.seq_len, model.seq_len**2) + _feed_forward(model, model.seq_len)
    for index in range(model.num_layers):
        yield LayerFlops(f"layers.{index}", block)
    square = 2 * model.hidden_size**2
    # Of the first token alone: the pooler, and the classifier's two rows.
    pair = square + 4 * model.hidden_size if model.pair_head else 0
    yield LayerFlops("transform", square * model.seq_len + pair)
    yield LayerFlops("head", _output_layer(model, model.seq_len))


def _t5(config: RunConfig) -> Iterator[LayerFlops]:
    model, target_len = config.model, denoising(config).target_len
    yield LayerFlops("embedding", 0)
    encoder = _self_attention(model, model.seq_len, model.seq_len**2) + _feed_forward(model, model.seq_len)
    for index in range(model.num_layers):
        yield LayerFlops(f"encoder.{index}", encoder)
    yield LayerFlops("encoder_final", 0)
    yield LayerFlops("decoder_embedding", 0)
    decoder = _self_attention(model, target_len, num_causal_scores(target_len)) + _feed_forward(model, target_len)
    decoder += _cross_attention(model, target_len, model.seq_len)
    for index in range(model.num_decoder_layers):
        yield LayerFlops(f"decoder.{index}", decoder)
    yield LayerFlops("decoder_final", 0)
    yield LayerFlops("head", _output_layer(model, target_len))


def num_causal_scores(length: int, window: int | None = None) -> int:
    """How many pairs of a query and a key there are, if a query sees the last `window` keys up to its own place."""
    seen = min(window or length, length)
    return seen * (seen + 1) // 2 + (length - seen) * seen


def _self_attention(model: ModelConfig, length: int, num_scores: int) -> int:
    """`length` queries and keys, of which `num_scores` pairs see each other."""
    query_size, kv_size = model.num_attention_heads * model.head_dim, model.num_key_value_heads * model.head_dim
    products = 2 * length * model.hidden_size * (2 * query_size + 2 * kv_size)
    return products + 4 * num_scores * query_size


def _cross_attention(model: ModelConfig, length: int, keys: int) -> int:
    size = model.num_attention_heads * model.head_dim
    return 4 * size * model.hidden_size * (length + keys) + 4 * length * keys * size


def _feed_forward(model: ModelConfig, length: int) -> int:
    return 2 * length * model.hidden_size * model.ffn_hidden_size * (3 if model.gated_mlp else 2)


def _output_layer(model: ModelConfig, length: int) -> int:
    return 2 * length * model.hidden_size * model.vocab_size
