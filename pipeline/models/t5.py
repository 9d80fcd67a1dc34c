"""The encoder-decoder family, T5 1.1 and the original: its parameter table and its list of pipeline layers.

A table of relative position scores is small, so that it travels with the activations, and each layer makes its bias of
it: gradients come back the same way, and no two stages share a weight for it.

Dims: S encoder positions (s: this rank's slice), T decoder positions (t: likewise), B batch, H hidden, V this rank's
vocabulary, C classes of distance, N this rank's heads.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import (
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import embedding

from pipeline.config.schema import ModelConfig
from pipeline.models.attention import seen_keys
from pipeline.models.embedding import Head, WordEmbedding
from pipeline.models.execution import Execution
from pipeline.models.family import Family
from pipeline.models.losses import TokenLoss
from pipeline.models.norms import norm_over_hidden
from pipeline.models.parameters import ParameterSpec, ParameterTable
from pipeline.models.parts import cross_attention, feed_forward, self_attention
from pipeline.models.pipeline_layer import PipelineLayer
from pipeline.models.relative import RelativeTable, relative_bias
from pipeline.models.residual import HiddenDropout, ResidualAdd
from pipeline.models.rows import LayerRows
from pipeline.models.transformer_config import transformer_config


class Encoding(NamedTuple):
    """What the encoder's layers hand on; plain tensors of floats and int64, as NCCL sends no bool.

    Attributes:
        hidden_sBH: the residual stream.
        table_CN: the encoder's relative position scores.
        mask_BS: 1 where the encoder's inputs are text, 0 where they are padding.
        decoder_ids_BT: for the decoder, which begins on a later stage.
    """

    hidden_sBH: torch.Tensor
    table_CN: torch.Tensor
    mask_BS: torch.Tensor
    decoder_ids_BT: torch.Tensor


class Decoding(NamedTuple):
    """What the decoder's layers hand on.

    Attributes:
        encoded_sBH: the encoder's output, which each layer attends to.
        table_CN: the decoder's relative position scores.
    """

    hidden_tBH: torch.Tensor
    encoded_sBH: torch.Tensor
    table_CN: torch.Tensor
    mask_BS: torch.Tensor


def parameter_table(model: ModelConfig) -> ParameterTable:
    """Every parameter of the model, in the order of its layers, with the initial deviations of T5's own code.

    The untied output layer is the exception: with T5's deviation of 1 the first logits would be as large as the root of
    the hidden size.
    """
    shape = (model.vocab_size, model.hidden_size)
    encoder_final = model.num_layers + 1
    decoder_final = encoder_final + model.num_decoder_layers + 2
    embedding_rows = LayerRows("embedding", 0)
    rows = [embedding_rows.matrix("word_embeddings.weight", shape, std=model.init_std, vocab=True)]
    rows.append(_relative_row(embedding_rows, model))
    for index in range(model.num_layers):
        rows += _block_rows(LayerRows(f"encoder.{index}", index + 1), model, attends_across=False)
    rows += LayerRows("encoder_final", encoder_final).norm("norm", model)
    rows.append(_relative_row(LayerRows("decoder_embedding", encoder_final + 1), model))
    for index in range(model.num_decoder_layers):
        rows += _block_rows(LayerRows(f"decoder.{index}", encoder_final + 2 + index), model, attends_across=True)
    rows += LayerRows("decoder_final", decoder_final).norm("norm", model)
    if not model.tie_embeddings:
        head = LayerRows("head", decoder_final + 1)
        rows.append(head.matrix("output_layer.weight", shape, std=_std(model, model.hidden_size), vocab=True))
    return ParameterTable(rows)


def _std(model: ModelConfig, fan_in: int) -> float:
    return model.init_std * fan_in**-0.5


def _relative_row(rows: LayerRows, model: ModelConfig) -> ParameterSpec:
    shape = (model.num_relative_buckets, model.num_attention_heads)
    std = _std(model, model.hidden_size)
    # It is a bias, which does not decay.
    return replace(rows.matrix("relative_attention_bias.weight", shape, std=std, split_dim=1), decay=False)


def _block_rows(rows: LayerRows, model: ModelConfig, *, attends_across: bool) -> list[ParameterSpec]:
    size, std = model.num_attention_heads * model.head_dim, _std(model, model.hidden_size)
    qkv, *others = rows.self_attention("self_attention", model, std=std, output_std=_std(model, size))
    # Queries start smaller, in place of a division of the scores. The rows of a head are its query, key and value.
    factors = ((model.head_dim, model.head_dim**-0.5), (2 * model.head_dim, 1.0))
    found = [*rows.norm("input_norm", model), replace(qkv, init_factors=factors), *others]
    if attends_across:
        found += rows.norm("cross_attention_norm", model)
        found += [
            rows.matrix("cross_attention.linear_q.weight", (size, model.hidden_size), std=std * model.head_dim**-0.5),
            rows.matrix("cross_attention.linear_kv.weight", (2 * size, model.hidden_size), std=std),
            rows.matrix(
                "cross_attention.linear_proj.weight", (model.hidden_size, size), std=_std(model, size), split_dim=1
            ),
        ]
    found += rows.norm("post_attention_norm", model)
    return found + rows.feed_forward("mlp", model, std=std, output_std=_std(model, model.ffn_hidden_size))


def pipeline_layers(model: ModelConfig, execution: Execution) -> list[PipelineLayer]:
    """The model as a list of layers, each of which maps one tuple to another one; nothing is built yet."""
    config = transformer_config(model, execution)
    tied = model.tie_embeddings
    return [
        PipelineLayer(
            Embedding,
            config,
            model=model,
            weight_holder=PipelineLayer(WordEmbedding, config, vocab_size=model.vocab_size),
        ),
        *(
            PipelineLayer(EncoderLayer, config, model=model, layer_number=number, recompute=execution.recompute)
            for number in range(1, model.num_layers + 1)
        ),
        PipelineLayer(EncoderFinal, config),
        PipelineLayer(DecoderEmbedding, config, model=model, weight_from=0),
        *(
            PipelineLayer(DecoderLayer, config, model=model, layer_number=number, recompute=execution.recompute)
            for number in range(1, model.num_decoder_layers + 1)
        ),
        PipelineLayer(DecoderFinal, config, scale=model.hidden_size**-0.5 if tied else 1.0),
        PipelineLayer(Head, config, vocab_size=model.vocab_size, tied=tied, weight_from=0 if tied else None),
    ]


class Embedding(WordEmbedding):
    """The encoder's token ids to hidden states: the first pipeline layer."""

    def __init__(self, config: TransformerConfig, *, model: ModelConfig) -> None:
        super().__init__(config, vocab_size=model.vocab_size)
        self.relative_attention_bias = RelativeTable(config, num_buckets=model.num_relative_buckets)
        self.dropout = HiddenDropout(config)

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> Encoding:
        """The first layer's inputs, for ids [B, S], their padding mask [B, S], and the decoder's ids [B, T]."""
        ids_BS, mask_BS, decoder_ids_BT = inputs
        hidden_sBH = self.dropout(self.embed(ids_BS))
        return Encoding(hidden_sBH, self.relative_attention_bias(), mask_BS, decoder_ids_BT)


class EncoderLayer(torch.nn.Module):
    """Attention to all tokens that are not padding, and the feed-forward layer, each on a normalized copy."""

    def __init__(self, config: TransformerConfig, *, model: ModelConfig, layer_number: int) -> None:
        super().__init__()
        self.max_distance = model.max_relative_distance
        self.input_norm = norm_over_hidden(config)
        self.self_attention = self_attention(config, layer_number=layer_number, is_causal=False)
        self.post_attention_norm = norm_over_hidden(config)
        self.mlp = feed_forward(config, drops_inside=True)
        self.add = ResidualAdd(config)

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> Encoding:
        """The residual stream after this layer, with what came beside it."""
        hidden_sBH, table_CN, mask_BS, decoder_ids_BT = inputs
        bias_1NSS = relative_bias(table_CN, mask_BS.shape[1], bidirectional=True, max_distance=self.max_distance)
        attended = self.self_attention(self.input_norm(hidden_sBH), seen_keys(mask_BS), attention_bias=bias_1NSS)
        hidden_sBH = self.add(hidden_sBH, attended)
        hidden_sBH = self.add(hidden_sBH, self.mlp(self.post_attention_norm(hidden_sBH)))
        return Encoding(hidden_sBH, table_CN, mask_BS, decoder_ids_BT)


class EncoderFinal(torch.nn.Module):
    """The encoder's last norm, behind which its table of relative positions is not needed any more."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = norm_over_hidden(config)
        self.dropout = HiddenDropout(config)

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The encoder's output [s, B, H], the padding mask [B, S], and the decoder's ids [B, T]."""
        hidden_sBH, _, mask_BS, decoder_ids_BT = inputs
        return self.dropout(self.norm(hidden_sBH)), mask_BS, decoder_ids_BT


class DecoderEmbedding(torch.nn.Module):
    """The decoder's token ids to hidden states, by the encoder's word embeddings."""

    def __init__(self, config: TransformerConfig, *, model: ModelConfig) -> None:
        super().__init__()
        self.sequence_parallel = config.sequence_parallel
        self.relative_attention_bias = RelativeTable(config, num_buckets=model.num_relative_buckets)
        self.dropout = HiddenDropout(config)

    def forward(self, inputs: tuple[torch.Tensor, ...], weight_VH: torch.Tensor) -> Decoding:
        """The first decoder layer's inputs; `weight_VH` is this rank's rows of the word embeddings."""
        encoded_sBH, mask_BS, ids_BT = inputs
        hidden_tBH = self.dropout(self._embed(ids_BT, weight_VH))
        return Decoding(hidden_tBH, encoded_sBH, self.relative_attention_bias(), mask_BS)

    def _embed(self, ids_BT: torch.Tensor, weight_VH: torch.Tensor) -> torch.Tensor:
        """As `WordEmbedding.embed` does with a table of its own: a rank adds nothing for ids that it does not have."""
        num_rows = len(weight_VH)
        own_BT = ids_BT - parallel_state.get_tensor_model_parallel_rank() * num_rows
        is_other_BT = (own_BT < 0) | (own_BT >= num_rows)
        embedded_BTH = embedding(own_BT.masked_fill(is_other_BT, 0), weight_VH)
        part_TBH = embedded_BTH.masked_fill(is_other_BT.unsqueeze(-1), 0.0).transpose(0, 1).contiguous()
        if self.sequence_parallel:
            return reduce_scatter_to_sequence_parallel_region(part_TBH)
        return reduce_from_tensor_model_parallel_region(part_TBH)


class DecoderLayer(torch.nn.Module):
    """Attention to the tokens before, then to the encoder's output, and the feed-forward layer."""

    def __init__(self, config: TransformerConfig, *, model: ModelConfig, layer_number: int) -> None:
        super().__init__()
        self.max_distance = model.max_relative_distance
        # Attention covers the whole sequence, of which sequence parallelism leaves a slice here.
        self.sequence_slices = config.tensor_model_parallel_size if config.sequence_parallel else 1
        self.input_norm = norm_over_hidden(config)
        self.self_attention = self_attention(config, layer_number=layer_number, is_causal=True)
        self.cross_attention_norm = norm_over_hidden(config)
        self.cross_attention = cross_attention(config, layer_number=layer_number)
        self.post_attention_norm = norm_over_hidden(config)
        self.mlp = feed_forward(config, drops_inside=True)
        self.add = ResidualAdd(config)

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> Decoding:
        """The residual stream after this layer, with what came beside it."""
        hidden_tBH, encoded_sBH, table_CN, mask_BS = inputs
        length = len(hidden_tBH) * self.sequence_slices
        bias_1NTT = relative_bias(table_CN, length, bidirectional=False, max_distance=self.max_distance)
        attended = self.self_attention(self.input_norm(hidden_tBH), None, attention_bias=bias_1NTT)
        hidden_tBH = self.add(hidden_tBH, attended)
        attended = self.cross_attention(
            self.cross_attention_norm(hidden_tBH), seen_keys(mask_BS), key_value_states=encoded_sBH
        )
        hidden_tBH = self.add(hidden_tBH, attended)
        hidden_tBH = self.add(hidden_tBH, self.mlp(self.post_attention_norm(hidden_tBH)))
        return Decoding(hidden_tBH, encoded_sBH, table_CN, mask_BS)


class DecoderFinal(torch.nn.Module):
    """The decoder's last norm, and the factor that the original T5 has before a tied head."""

    def __init__(self, config: TransformerConfig, *, scale: float) -> None:
        super().__init__()
        self.norm = norm_over_hidden(config)
        self.dropout = HiddenDropout(config)
        self.scale = scale

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """What the head reads, shape [t, B, H]."""
        return self.dropout(self.norm(inputs[0])) * self.scale


T5 = Family(
    parameter_table=parameter_table,
    pipeline_layers=pipeline_layers,
    inputs=("input_ids", "attention_mask", "decoder_input_ids"),
    labels=("labels",),
    make_loss=TokenLoss,
)
