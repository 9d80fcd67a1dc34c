"""Token ids to hidden states, and back to logits over this rank's vocabulary.

Dims: S sequence (s: this rank's slice of it), B batch, H hidden, V this rank's vocabulary.
"""

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import ColumnParallelLinear, VocabParallelEmbedding
from megatron.core.transformer.transformer_config import TransformerConfig

from pipeline.models.norms import shared_by_slices
from pipeline.models.parameters import padded_vocab_size


class WordEmbedding(torch.nn.Module):
    """The table of word embeddings, its rows split over the tensor-parallel ranks; a tied head reads it, too."""

    def __init__(self, config: TransformerConfig, *, vocab_size: int) -> None:
        super().__init__()
        self.sequence_parallel = config.sequence_parallel
        self.word_embeddings = VocabParallelEmbedding(
            padded_vocab_size(vocab_size, config.tensor_model_parallel_size),
            config.hidden_size,
            init_method=config.init_method,
            reduce_scatter_embeddings=config.sequence_parallel,
            config=config,
        )

    @property
    def weight(self) -> torch.Tensor:
        """This rank's rows of the table, shape [V, H]."""
        return self.word_embeddings.weight

    def embed(self, ids_BS: torch.Tensor) -> torch.Tensor:
        """Word embeddings, shape [s, B, H], for token ids, int64 [B, S]."""
        embedded = self.word_embeddings(ids_BS)
        return embedded if self.sequence_parallel else embedded.transpose(0, 1).contiguous()


class LearnedPositions(torch.nn.Module):
    """A learned vector for each position, which every tensor-parallel rank holds in full."""

    def __init__(self, config: TransformerConfig, *, num_positions: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(num_positions, config.hidden_size))
        self.is_sliced = config.sequence_parallel

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        """The vectors, [..., H], of the positions of this rank's slice."""
        return torch.nn.functional.embedding(positions, shared_by_slices(self.weight, is_sliced=self.is_sliced))


def own_slice(tensor_BS: torch.Tensor, config: TransformerConfig) -> torch.Tensor:
    """What this rank holds of the sequence: [B, s] of [B, S]; all of it without sequence parallelism."""
    if not config.sequence_parallel:
        return tensor_BS
    return tensor_BS.chunk(config.tensor_model_parallel_size, dim=1)[parallel_state.get_tensor_model_parallel_rank()]


class Head(torch.nn.Module):
    """Hidden states to logits over this rank's vocabulary: the last pipeline layer.

    A tied head holds no weight of its own: it is called with the embedding's.
    """

    def __init__(self, config: TransformerConfig, *, vocab_size: int, tied: bool, bias: bool = False) -> None:
        super().__init__()
        padded = padded_vocab_size(vocab_size, config.tensor_model_parallel_size)
        self.output_layer = ColumnParallelLinear(
            config.hidden_size,
            padded,
            config=config,
            init_method=config.init_method,
            bias=bias,
            skip_bias_add=True,  # it is added in place
            gather_output=False,
            skip_weight_param_allocation=tied,
        )
        rows = padded // config.tensor_model_parallel_size
        self.num_real = min(max(vocab_size - parallel_state.get_tensor_model_parallel_rank() * rows, 0), rows)

    def forward(self, hidden_sBH: torch.Tensor, weight_VH: torch.Tensor | None = None) -> torch.Tensor:
        """Logits, shape [S, B, V]; those of the vocabulary's padding are the least finite number."""
        logits_SBV, bias_V = self.output_layer(hidden_sBH, weight=weight_VH)
        if bias_V is not None:
            logits_SBV += bias_V
        if self.num_real < logits_SBV.shape[-1]:
            logits_SBV = _HidePadding.apply(logits_SBV, self.num_real)
        return logits_SBV


class _HidePadding(torch.autograd.Function):
    """Sets the logits behind the first `num_real` to the least finite number, in place.

    Gradients pass as they are: such a logit's is its probability, 0. An assignment would copy those of all logits, the
    largest tensor of a step.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, num_real: int) -> torch.Tensor:
        ctx.mark_dirty(logits)
        logits[..., num_real:] = torch.finfo(logits.dtype).min
        return logits

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:  # noqa: ARG004 (torch's signature)
        return gradients[0], None
