"""What megatron-core's parts need to know of a model."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn import functional

from pipeline.config.architectures import Activation
from pipeline.config.schema import ModelConfig
from pipeline.models.execution import Execution

ACTIVATIONS: Mapping[Activation, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType(
    {
        "silu": functional.silu,
        "gelu": functional.gelu,
        "gelu_tanh": partial(functional.gelu, approximate="tanh"),
        "relu": functional.relu,
    }
)


def transformer_config(model: ModelConfig, execution: Execution) -> TransformerConfig:
    """The config of megatron-core's parts of `model`, run as `execution` says."""
    made = model.made
    return TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.num_key_value_heads,
        kv_channels=model.head_dim,
        ffn_hidden_size=model.ffn_hidden_size,
        layernorm_epsilon=model.norm_epsilon,
        normalization="RMSNorm" if made.norm == "rms" else "LayerNorm",
        add_bias_linear=made.linear_bias,
        add_qkv_bias=made.qkv_bias,
        gated_linear_unit=model.gated_mlp,
        activation_func=ACTIVATIONS[model.activation],
        # T5 has this factor in its initial weights.
        softmax_scale=1.0 if model.family == "t5" else None,
        hidden_dropout=model.hidden_dropout,
        attention_dropout=model.attention_dropout,
        tensor_model_parallel_size=execution.tensor_parallel_size,
        sequence_parallel=execution.sequence_parallel,
        # The parameter table initializes, on the CPU, so that weights do not depend on the topology.
        use_cpu_initialization=True,
        perform_initialization=False,
        # These kernels come with apex or TransformerEngine, or are compiled at first use.
        bias_activation_fusion=False,
        gradient_accumulation_fusion=False,
    )
