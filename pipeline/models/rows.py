"""Rows of the parameter table for the parts that all families are arranged from."""

from typing import Any

from pipeline.config.schema import ModelConfig
from pipeline.models.parameters import ParameterSpec


class LayerRows:
    """Makes the rows of one pipeline layer.

    Args:
        prefix: what its parameters' logical names begin with.
        layer: its index in the list of pipeline layers.
    """

    def __init__(self, prefix: str, layer: int) -> None:
        self.prefix = prefix
        self.layer = layer

    def matrix(
        self,
        local_name: str,
        shape: tuple[int, int],
        *,
        std: float,
        split_dim: int | None = 0,
        num_blocks: int = 1,
        vocab: bool = False,
    ) -> ParameterSpec:
        return self._row(
            local_name, shape=shape, split_dim=split_dim, num_blocks=num_blocks, pads_vocab=vocab, init_std=std
        )

    def vector(
        self,
        local_name: str,
        size: int,
        *,
        is_scale: bool = False,
        is_split: bool = False,
        num_blocks: int = 1,
        vocab: bool = False,
    ) -> ParameterSpec:
        """A scale, which begins as ones, or a bias, which begins as zeros; neither decays."""
        return self._row(
            local_name,
            shape=(size,),
            split_dim=0 if is_split else None,
            num_blocks=num_blocks,
            pads_vocab=vocab,
            init_std=None if is_scale else 0.0,
            decay=False,
        )

    def norm(self, local_name: str, model: ModelConfig) -> list[ParameterSpec]:
        """Of a norm over the hidden dim."""
        rows = [self.vector(f"{local_name}.weight", model.hidden_size, is_scale=True)]
        if model.made.norm == "layer":
            rows.append(self.vector(f"{local_name}.bias", model.hidden_size))
        return rows

    def self_attention(
        self, local_name: str, model: ModelConfig, *, std: float, output_std: float
    ) -> list[ParameterSpec]:
        """Of megatron-core's `SelfAttention`."""
        made, head_dim = model.made, model.head_dim
        query_size = model.num_attention_heads * head_dim
        qkv_size = query_size + 2 * model.num_key_value_heads * head_dim
        # Rows are grouped by key/value head: its query heads, its key, its value. So a slice holds whole groups, or,
        # with fewer of these heads than ranks, an even part of one, which the ranks then put together.
        rows = [self.matrix(f"{local_name}.linear_qkv.weight", (qkv_size, model.hidden_size), std=std)]
        if made.linear_bias or made.qkv_bias:
            rows.append(self.vector(f"{local_name}.linear_qkv.bias", qkv_size, is_split=True))
        if made.qk_norm:
            rows.append(self.vector(f"{local_name}.q_layernorm.weight", head_dim, is_scale=True))
            rows.append(self.vector(f"{local_name}.k_layernorm.weight", head_dim, is_scale=True))
        return rows + self._output(f"{local_name}.linear_proj", (model.hidden_size, query_size), model, std=output_std)

    def feed_forward(
        self, local_name: str, model: ModelConfig, *, std: float, output_std: float
    ) -> list[ParameterSpec]:
        """Of megatron-core's `MLP`."""
        hidden, ffn = model.hidden_size, model.ffn_hidden_size
        num_blocks = 2 if model.gated_mlp else 1
        first = f"{local_name}.linear_fc1"
        rows = [self.matrix(f"{first}.weight", (num_blocks * ffn, hidden), std=std, num_blocks=num_blocks)]
        if model.made.linear_bias:
            rows.append(self.vector(f"{first}.bias", num_blocks * ffn, is_split=True, num_blocks=num_blocks))
        return rows + self._output(f"{local_name}.linear_fc2", (hidden, ffn), model, std=output_std)

    def _output(self, name: str, shape: tuple[int, int], model: ModelConfig, *, std: float) -> list[ParameterSpec]:
        """Of a linear layer that writes to the residual stream; every rank adds the whole bias, after the sum."""
        rows = [self.matrix(f"{name}.weight", shape, std=std, split_dim=1)]
        return rows + ([self.vector(f"{name}.bias", shape[0])] if model.made.linear_bias else [])

    def _row(self, local_name: str, **facts: Any) -> ParameterSpec:
        return ParameterSpec(name=f"{self.prefix}.{local_name}", layer=self.layer, local_name=local_name, **facts)
