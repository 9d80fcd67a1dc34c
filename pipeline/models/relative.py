"""T5's relative position bias: the classes ("buckets") of distance, and the scores that a table gives them.

Dims: C classes of distance, N this rank's heads, Q query positions, K key positions, D distances.
"""

import math

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import embedding


class RelativeTable(torch.nn.Module):
    """A learned score for each class of distance and each head; a tensor-parallel rank has those of its heads."""

    def __init__(self, config: TransformerConfig, *, num_buckets: int) -> None:
        super().__init__()
        num_heads = config.num_attention_heads // config.tensor_model_parallel_size
        self.weight = torch.nn.Parameter(torch.empty(num_buckets, num_heads))

    def forward(self) -> torch.Tensor:
        """A copy of the table, [C, N], to travel with the activations: ZeRO 3 takes the weight itself away again."""
        return self.weight.clone()


def relative_bias(table_CN: torch.Tensor, length: int, *, bidirectional: bool, max_distance: int) -> torch.Tensor:
    """What is added to the attention scores of `length` queries and as many keys, shape [1, N, Q, K].

    It depends on the distance alone, so that each distance is looked up once, and a row of the result is a window over
    these scores; that is faster than looking up every pair.
    """
    distances_D = torch.arange(1 - length, length, device=table_CN.device)
    buckets_D = relative_buckets(
        distances_D, bidirectional=bidirectional, num_buckets=len(table_CN), max_distance=max_distance
    )
    scores_ND = embedding(buckets_D, table_CN).transpose(0, 1)
    # Window w begins at distance w + 1 - length, which is that of the first key from query length - 1 - w.
    windows_NQK = scores_ND.unfold(1, length, 1)
    return windows_NQK.flip(1).unsqueeze(0)


def relative_buckets(
    distances: torch.Tensor, *, bidirectional: bool, num_buckets: int, max_distance: int
) -> torch.Tensor:
    """The class of each distance, key position less query position: int64 in [0, num_buckets), same shape.

    Near keys have a class for each distance; farther ones share classes that widen by a constant factor up to
    `max_distance`, from where on there is one. Keys behind the query have classes of their own if `bidirectional`, and
    count as being at distance 0 if not: a causal mask hides them.

    The logarithm is taken in fp32 and in the order of transformers, as a distance at the edge of a class goes by its
    rounding.

    Source: Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer", 2020,
    section 2.1, and its code.
    """
    one_side = num_buckets // 2 if bidirectional else num_buckets
    num_near = one_side // 2
    away = distances.abs() if bidirectional else (-distances).clamp(min=0)
    share = torch.log(away.float() / num_near) / math.log(max_distance / num_near)
    # At distance 0 the logarithm is minus infinity, which is no whole number; it is a near one.
    far = num_near + (share.clamp(min=0) * (one_side - num_near)).long()
    bucket = torch.where(away < num_near, away, far.clamp(max=one_side - 1))
    return bucket + (distances > 0) * one_side if bidirectional else bucket
