"""The encoder family, in the style of BERT: its parameter table and its list of pipeline layers.

Dims: S sequence (s: this rank's slice of it), B batch, H hidden, V this rank's vocabulary.
"""

from typing import Any

import torch
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.transformer_config import TransformerConfig

from pipeline.config.schema import ModelConfig
from pipeline.models.attention import seen_keys
from pipeline.models.documents import Carried, beside, hidden_of
from pipeline.models.embedding import Head, LearnedPositions, WordEmbedding, own_slice
from pipeline.models.execution import Execution
from pipeline.models.family import Family
from pipeline.models.norms import norm_over_hidden, shared_by_slices
from pipeline.models.pair_loss import PARTS, PairLoss
from pipeline.models.parameters import ParameterSpec, ParameterTable
from pipeline.models.parts import feed_forward, self_attention
from pipeline.models.pipeline_layer import PipelineLayer
from pipeline.models.residual import HiddenDropout, ResidualAdd
from pipeline.models.rows import LayerRows
from pipeline.models.transformer_config import transformer_config

NUM_PAIR_CLASSES = 2


def parameter_table(model: ModelConfig) -> ParameterTable:
    """Every parameter of the model, in the order of its layers."""
    rows = _embedding_rows(model)
    for index in range(model.num_layers):
        rows += _layer_rows(model, index)
    rows += _transform_rows(model)
    head = LayerRows("head", model.num_layers + 2)
    rows.append(head.vector("output_layer.bias", model.vocab_size, is_split=True, vocab=True))
    return ParameterTable(rows)


def _embedding_rows(model: ModelConfig) -> list[ParameterSpec]:
    rows, width, std = LayerRows("embedding", 0), model.hidden_size, model.init_std
    return [
        rows.matrix("word_embeddings.weight", (model.vocab_size, width), std=std, vocab=True),
        rows.matrix("positions.weight", (model.seq_len, width), std=std, split_dim=None),
        rows.matrix("token_types.weight", (model.num_token_types, width), std=std, split_dim=None),
        *rows.norm("norm", model),
    ]


def _layer_rows(model: ModelConfig, index: int) -> list[ParameterSpec]:
    rows, std = LayerRows(f"layers.{index}", index + 1), model.init_std
    return [
        *rows.self_attention("self_attention", model, std=std, output_std=std),
        *rows.norm("attention_norm", model),
        *rows.feed_forward("mlp", model, std=std, output_std=std),
        *rows.norm("mlp_norm", model),
    ]


def _transform_rows(model: ModelConfig) -> list[ParameterSpec]:
    rows, width = LayerRows("transform", model.num_layers + 1), model.hidden_size
    linear = {"dense": width}
    if model.pair_head:
        linear |= {"pair_head.pooler": width, "pair_head.classifier": NUM_PAIR_CLASSES}
    found = rows.norm("norm", model)
    for name, num_rows in linear.items():
        found.append(rows.matrix(f"{name}.weight", (num_rows, width), std=model.init_std, split_dim=None))
        found.append(rows.vector(f"{name}.bias", num_rows))
    return found


def pipeline_layers(model: ModelConfig, execution: Execution) -> list[PipelineLayer]:
    """The model as a list of layers; nothing is built yet.

    Token ids, types and the attention mask go in; hidden states and the mask go from layer to layer; the logits of the
    tokens come out, with those of the pairs behind them where the model judges pairs.
    """
    config = transformer_config(model, execution)
    word_embedding = PipelineLayer(WordEmbedding, config, vocab_size=model.vocab_size)
    return [
        PipelineLayer(Embedding, config, model=model, weight_holder=word_embedding),
        *(
            PipelineLayer(PostNormLayer, config, layer_number=number, recompute=execution.recompute)
            for number in range(1, model.num_layers + 1)
        ),
        PipelineLayer(Transform, config, has_pair_head=model.pair_head),
        PipelineLayer(TokenHead, config, vocab_size=model.vocab_size, tied=True, bias=True, weight_from=0),
    ]


class Embedding(WordEmbedding):
    """Tokens, their positions and the segments that they belong to, as hidden states: the first pipeline layer."""

    def __init__(self, config: TransformerConfig, *, model: ModelConfig) -> None:
        super().__init__(config, vocab_size=model.vocab_size)
        self.config = config
        self.positions = LearnedPositions(config, num_positions=model.seq_len)
        self.token_types = LearnedPositions(config, num_positions=model.num_token_types)
        self.norm = norm_over_hidden(config)
        self.dropout = HiddenDropout(config)

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states, shape [s, B, H], and the mask as it came.

        Args:
            inputs: token ids, token types, and the attention mask, which is 1 where there is text; int64, [B, S] each.
        """
        ids_BS, types_BS, mask_BS = inputs
        positions_1S = torch.arange(ids_BS.shape[1], device=ids_BS.device)[None]
        hidden_sBH = self.embed(ids_BS)
        hidden_sBH = hidden_sBH + self.token_types(own_slice(types_BS, self.config).transpose(0, 1))
        hidden_sBH = hidden_sBH + self.positions(own_slice(positions_1S, self.config).transpose(0, 1))
        return self.dropout(self.norm(hidden_sBH)), mask_BS


class PostNormLayer(torch.nn.Module):
    """One encoder layer: what attention and MLP make is added to their input, and the sum is normalized."""

    def __init__(self, config: TransformerConfig, *, layer_number: int) -> None:
        super().__init__()
        self.self_attention = self_attention(config, layer_number=layer_number, is_causal=False)
        self.attention_norm = norm_over_hidden(config)
        self.mlp = feed_forward(config)
        self.mlp_norm = norm_over_hidden(config)
        self.add = ResidualAdd(config)

    def forward(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The hidden states after this layer, same shape, [s, B, H], and the mask as it came, int64 [B, S]."""
        hidden_sBH, mask_BS = inputs
        attended = self.self_attention(hidden_sBH, seen_keys(mask_BS))
        hidden_sBH = self.attention_norm(self.add(hidden_sBH, attended))
        return self.mlp_norm(self.add(hidden_sBH, self.mlp(hidden_sBH))), mask_BS


class SharedLinear(torch.nn.Module):
    """A linear layer with bias, too small to be split: every tensor-parallel rank holds it in full.

    Args:
        is_sliced: each of them sees its own slice of the activations.
    """

    def __init__(self, input_size: int, output_size: int, *, is_sliced: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(output_size, input_size))
        self.bias = torch.nn.Parameter(torch.empty(output_size))
        self.is_sliced = is_sliced

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Shape [..., output_size] of [..., input_size]."""
        weight, bias = (shared_by_slices(one, is_sliced=self.is_sliced) for one in (self.weight, self.bias))
        # Apart, so that the product is computed in `pipeline.cpu.product_dtype` on CPUs.
        return torch.nn.functional.linear(hidden, weight) + bias


class PairHead(torch.nn.Module):
    """The classifier of pairs, which reads the first token's hidden state."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.sequence_parallel = config.sequence_parallel
        # The first token is gathered, and then computed with on every rank alike.
        self.pooler = SharedLinear(config.hidden_size, config.hidden_size, is_sliced=False)
        self.classifier = SharedLinear(config.hidden_size, NUM_PAIR_CLASSES, is_sliced=False)

    def forward(self, hidden_sBH: torch.Tensor) -> torch.Tensor:
        """Logits of the pairs, shape [B, 2]."""
        first_1BH = hidden_sBH[:1]
        if self.sequence_parallel:  # the first token of each slice; the first slice's is the sequence's
            first_1BH = gather_from_sequence_parallel_region(first_1BH, tensor_parallel_output_grad=False)
        return self.classifier(torch.tanh(self.pooler(first_1BH[0])))


class Transform(torch.nn.Module):
    """What is between the last encoder layer and the vocabulary, and the judgement of pairs, if there is one."""

    def __init__(self, config: TransformerConfig, *, has_pair_head: bool) -> None:
        super().__init__()
        self.dense = SharedLinear(config.hidden_size, config.hidden_size, is_sliced=config.sequence_parallel)
        self.activation = config.activation_func
        self.norm = norm_over_hidden(config)
        self.pair_head = PairHead(config) if has_pair_head else None

    def forward(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> Carried:
        """Hidden states for the vocabulary, shape [s, B, H], and the logits of the pairs, [B, 2]."""
        hidden_sBH, _ = inputs
        transformed_sBH = self.norm(self.activation(self.dense(hidden_sBH)))
        return transformed_sBH if self.pair_head is None else (transformed_sBH, self.pair_head(hidden_sBH))


class TokenHead(Head):
    """The last pipeline layer: hidden states to logits of the tokens, past those of the pairs."""

    def forward(self, inputs: Carried, weight_VH: torch.Tensor | None = None) -> Any:
        """Logits of the tokens, shape [S, B, V], and those of the pairs as they came, [B, 2], if there are any."""
        return beside(inputs, super().forward(hidden_of(inputs), weight_VH))


BERT = Family(
    parameter_table=parameter_table,
    pipeline_layers=pipeline_layers,
    inputs=("input_ids", "token_type_ids", "attention_mask"),
    labels=("labels", "next_sentence_label"),
    make_loss=PairLoss,
    loss_parts=PARTS,
)
