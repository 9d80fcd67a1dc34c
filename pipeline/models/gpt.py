"""The decoder family, Llama style: its parameter table and its list of pipeline layers."""

import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from pipeline.config.schema import ModelConfig
from pipeline.models.documents import Documents
from pipeline.models.layers import Embedding, FinalNorm, Head, PreNormLayer
from pipeline.models.parameters import ParameterSpec, ParameterTable
from pipeline.models.pipeline_layer import PipelineLayer
from pipeline.models.rotary import Rotary


def parameter_table(model: ModelConfig) -> ParameterTable:
    """Every parameter of the model, in the order of its layers."""
    final_norm = model.num_layers + 1
    rows = [_matrix(model, "embedding", 0, "word_embeddings.weight", (model.vocab_size, model.hidden_size), vocab=True)]
    for index in range(model.num_layers):
        rows += _layer_rows(model, index)
    rows.append(_norm(model, "final_norm", final_norm, "weight"))
    if not model.tie_embeddings:
        shape = (model.vocab_size, model.hidden_size)
        rows.append(_matrix(model, "head", final_norm + 1, "output_layer.weight", shape, vocab=True))
    return ParameterTable(rows)


def _layer_rows(model: ModelConfig, index: int) -> list[ParameterSpec]:
    prefix, layer = f"layers.{index}", index + 1
    hidden, ffn = model.hidden_size, model.ffn_hidden_size
    query_size = model.num_attention_heads * model.head_dim
    qkv_size = query_size + 2 * model.num_key_value_heads * model.head_dim
    # The two that write to the residual stream start smaller, so that its variance does not grow with depth (GPT-2).
    output_std = model.init_std / (2 * model.num_layers) ** 0.5
    return [
        _norm(model, prefix, layer, "input_norm.weight"),
        # Rows are grouped by key/value head: its query heads, its key, its value. So a slice holds whole groups.
        _matrix(model, prefix, layer, "self_attention.linear_qkv.weight", (qkv_size, hidden)),
        _matrix(
            model, prefix, layer, "self_attention.linear_proj.weight", (hidden, query_size), split_dim=1, std=output_std
        ),
        _norm(model, prefix, layer, "post_attention_norm.weight"),
        _matrix(model, prefix, layer, "mlp.linear_fc1.weight", (2 * ffn, hidden), num_blocks=2),
        _matrix(model, prefix, layer, "mlp.linear_fc2.weight", (hidden, ffn), split_dim=1, std=output_std),
    ]


def _norm(model: ModelConfig, prefix: str, layer: int, local_name: str) -> ParameterSpec:
    return ParameterSpec(
        name=f"{prefix}.{local_name}",
        layer=layer,
        local_name=local_name,
        shape=(model.hidden_size,),
        init_std=None,
        decay=False,
    )


def _matrix(
    model: ModelConfig,
    prefix: str,
    layer: int,
    local_name: str,
    shape: tuple[int, int],
    *,
    split_dim: int = 0,
    num_blocks: int = 1,
    vocab: bool = False,
    std: float | None = None,
) -> ParameterSpec:
    return ParameterSpec(
        name=f"{prefix}.{local_name}",
        layer=layer,
        local_name=local_name,
        shape=shape,
        split_dim=split_dim,
        num_blocks=num_blocks,
        pads_vocab=vocab,
        init_std=std or model.init_std,
    )


def transformer_config(model: ModelConfig, *, tensor_parallel_size: int, sequence_parallel: bool) -> TransformerConfig:
    """What megatron-core's parts need to know of the model."""
    return TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.num_key_value_heads,
        kv_channels=model.head_dim,
        ffn_hidden_size=model.ffn_hidden_size,
        layernorm_epsilon=model.norm_epsilon,
        normalization="RMSNorm",
        add_bias_linear=False,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=tensor_parallel_size,
        sequence_parallel=sequence_parallel,
        # The parameter table initializes, on the CPU, so that weights do not depend on the topology.
        use_cpu_initialization=True,
        perform_initialization=False,
        # These kernels come with apex or TransformerEngine, or are compiled at first use.
        bias_activation_fusion=False,
        gradient_accumulation_fusion=False,
    )


def pipeline_layers(
    model: ModelConfig,
    *,
    tensor_parallel_size: int,
    sequence_parallel: bool,
    documents: Documents = Documents(),  # noqa: B008 (it cannot change)
) -> list[PipelineLayer]:
    """The model as a list of layers, each of which maps one tensor to one tensor; nothing is built yet.

    Where `documents` are told apart, tensors come with what tells them apart behind them, in a tuple.
    """
    config = transformer_config(model, tensor_parallel_size=tensor_parallel_size, sequence_parallel=sequence_parallel)
    rotary = Rotary(head_dim=model.head_dim, theta=model.rope_theta)
    tied = model.tie_embeddings
    return [
        PipelineLayer(Embedding, config, vocab_size=model.vocab_size),
        *(
            PipelineLayer(PreNormLayer, config, layer_number=number, rotary=rotary, documents=documents, is_block=True)
            for number in range(1, model.num_layers + 1)
        ),
        PipelineLayer(FinalNorm, model.hidden_size, epsilon=model.norm_epsilon, sequence_parallel=sequence_parallel),
        PipelineLayer(Head, config, vocab_size=model.vocab_size, tied=tied, weight_from=0 if tied else None),
    ]
