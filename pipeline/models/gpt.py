"""The decoder family, in the styles of Llama and of GPT-2: its parameter table and its list of pipeline layers.

Dims: S sequence (s: this rank's slice of it), B batch, H hidden.
"""

import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from pipeline.config.schema import ModelConfig
from pipeline.models.documents import Carried, Documents, beside, hidden_of
from pipeline.models.embedding import Head, LearnedPositions, WordEmbedding, own_slice
from pipeline.models.execution import Execution
from pipeline.models.family import Family
from pipeline.models.losses import TokenLoss
from pipeline.models.norms import norm_over_hidden
from pipeline.models.parameters import ParameterSpec, ParameterTable
from pipeline.models.parts import feed_forward, self_attention
from pipeline.models.pipeline_layer import PipelineLayer
from pipeline.models.residual import HiddenDropout, ResidualAdd
from pipeline.models.rotary import Rotary
from pipeline.models.rows import LayerRows
from pipeline.models.transformer_config import transformer_config


def parameter_table(model: ModelConfig) -> ParameterTable:
    """Every parameter of the model, in the order of its layers."""
    final_norm = model.num_layers + 1
    table_shape = (model.vocab_size, model.hidden_size)
    embedding = LayerRows("embedding", 0)
    rows = [embedding.matrix("word_embeddings.weight", table_shape, std=model.init_std, vocab=True)]
    if model.made.positions == "learned":
        shape = (model.seq_len, model.hidden_size)
        rows.append(embedding.matrix("positions.weight", shape, std=model.init_std, split_dim=None))
    for index in range(model.num_layers):
        rows += _layer_rows(model, index)
    rows += LayerRows("final", final_norm).norm("norm", model)
    if not model.tie_embeddings:
        head = LayerRows("head", final_norm + 1)
        rows.append(head.matrix("output_layer.weight", table_shape, std=model.init_std, vocab=True))
    return ParameterTable(rows)


def _layer_rows(model: ModelConfig, index: int) -> list[ParameterSpec]:
    rows = LayerRows(f"layers.{index}", index + 1)
    # The two that write to the residual stream start smaller, so that its variance does not grow with depth (GPT-2).
    output_std = model.init_std / (2 * model.num_layers) ** 0.5
    return [
        *rows.norm("input_norm", model),
        *rows.self_attention("self_attention", model, std=model.init_std, output_std=output_std),
        *rows.norm("post_attention_norm", model),
        *rows.feed_forward("mlp", model, std=model.init_std, output_std=output_std),
    ]


def pipeline_layers(model: ModelConfig, execution: Execution) -> list[PipelineLayer]:
    """The model as a list of layers, each of which maps one tensor to one tensor; nothing is built yet.

    Where documents are told apart, tensors come with what tells them apart behind them, in a tuple.
    """
    config = transformer_config(model, execution)
    rotary = Rotary(model) if model.made.positions == "rotary" else None
    tied = model.tie_embeddings
    return [
        PipelineLayer(
            Embedding,
            config,
            model=model,
            documents=execution.documents,
            weight_holder=PipelineLayer(WordEmbedding, config, vocab_size=model.vocab_size),
        ),
        *(
            PipelineLayer(
                PreNormLayer,
                config,
                model=model,
                layer_number=number,
                rotary=rotary,
                documents=execution.documents,
                recompute=execution.recompute,
            )
            for number in range(1, model.num_layers + 1)
        ),
        PipelineLayer(FinalNorm, config),
        PipelineLayer(Head, config, vocab_size=model.vocab_size, tied=tied, weight_from=0 if tied else None),
    ]


class Embedding(WordEmbedding):
    """Token ids to hidden states: the first pipeline layer."""

    def __init__(self, config: TransformerConfig, *, model: ModelConfig, documents: Documents) -> None:
        super().__init__(config, vocab_size=model.vocab_size)
        self.config = config
        self.documents = documents
        learned = model.made.positions == "learned"
        self.positions = LearnedPositions(config, num_positions=model.seq_len) if learned else None
        self.dropout = HiddenDropout(config)

    def forward(self, inputs: Carried) -> Carried:
        """Hidden states, shape [s, B, H], for token ids of shape [B, S]."""
        ids_BS = hidden_of(inputs)
        hidden_sBH = self.embed(ids_BS)
        if self.positions is not None:
            positions_BS = self.documents.positions(inputs, ids_BS.shape[1])
            hidden_sBH = hidden_sBH + self.positions(own_slice(positions_BS, self.config).transpose(0, 1))
        return beside(inputs, self.dropout(hidden_sBH))


class PreNormLayer(torch.nn.Module):
    """One decoder layer: attention and MLP each read a normalized copy and add to the residual stream."""

    def __init__(
        self,
        config: TransformerConfig,
        *,
        model: ModelConfig,
        layer_number: int,
        rotary: Rotary | None,
        documents: Documents,
    ) -> None:
        super().__init__()
        self.documents = documents
        self.rotary = rotary
        # Rotation covers the whole sequence: under sequence parallelism it is gathered before the queries are made.
        self.sequence_slices = config.tensor_model_parallel_size if config.sequence_parallel else 1
        self.input_norm = norm_over_hidden(config)
        self.self_attention = self_attention(
            config,
            layer_number=layer_number,
            is_causal=True,
            qk_norm=model.made.qk_norm,
            window=model.sliding_window,
        )
        self.post_attention_norm = norm_over_hidden(config)
        self.mlp = feed_forward(config)
        self.add = ResidualAdd(config)

    def forward(self, inputs: Carried) -> Carried:
        """The residual stream after this layer, same shape, [s, B, H]."""
        hidden_sBH = hidden_of(inputs)
        attended = self.self_attention(
            self.input_norm(hidden_sBH),
            self.documents.attention_mask(inputs),
            rotary_pos_emb=self._angles(inputs, hidden_sBH),
        )
        hidden_sBH = self.add(hidden_sBH, attended)
        return beside(inputs, self.add(hidden_sBH, self.mlp(self.post_attention_norm(hidden_sBH))))

    def _angles(self, inputs: Carried, hidden_sBH: torch.Tensor) -> torch.Tensor | None:
        if self.rotary is None:
            return None
        angles_S11D = self.rotary(hidden_sBH.shape[0] * self.sequence_slices, hidden_sBH.device)
        return self.documents.angles(inputs, angles_S11D)


class FinalNorm(torch.nn.Module):
    """The norm before the head, behind which documents need not be told apart any more."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = norm_over_hidden(config)

    def forward(self, inputs: Carried) -> torch.Tensor:
        """Normalized hidden states, shape [s, B, H]."""
        return self.norm(hidden_of(inputs))


GPT = Family(
    parameter_table=parameter_table,
    pipeline_layers=pipeline_layers,
    inputs=("input_ids", "document_ids", "position_ids"),
    labels=("labels",),
    make_loss=TokenLoss,
)
