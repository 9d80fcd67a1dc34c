"""Queries, keys and values out of the one projection that makes them all."""

from collections.abc import Sequence

import torch

from pipeline.config.schema import ModelConfig


def query_key_value(fused: torch.Tensor, model: ModelConfig) -> Sequence[torch.Tensor]:
    """The three weights or biases, each with its heads in order along dim 0.

    Args:
        fused: grouped by key/value head along dim 0: its query heads, its key, its value.
    """
    queries_per_group = model.num_attention_heads // model.num_key_value_heads
    groups = fused.view(model.num_key_value_heads, queries_per_group + 2, model.head_dim, *fused.shape[1:])
    blocks = groups.split([queries_per_group, 1, 1], dim=1)
    return [block.flatten(0, 2) for block in blocks]
