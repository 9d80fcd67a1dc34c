"""The parts that every model family is arranged from.

Dims: S sequence (s: this rank's slice of it), B batch, H hidden, V this rank's vocabulary.
"""

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    copy_to_tensor_model_parallel_region,
    vocab_parallel_cross_entropy,
)
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig

from pipeline.models.attention import SdpaCoreAttention
from pipeline.models.documents import Carried, Documents, beside, hidden_of
from pipeline.models.parameters import padded_vocab_size
from pipeline.models.rotary import Rotary
from pipeline.objectives.samples import IGNORED


class RMSNorm(torch.nn.Module):
    """Root-mean-square norm as Hugging Face's Llama computes it: statistics in fp32, scaled in the input's dtype.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    def __init__(self, hidden_size: int, *, epsilon: float, sequence_parallel: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(hidden_size))
        self.epsilon = epsilon
        self.sequence_parallel = sequence_parallel

    def forward(self, hidden_sBH: torch.Tensor) -> torch.Tensor:
        """Normalized over the last dim, same shape and dtype."""
        wide = hidden_sBH.float()
        normalized = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return self._weight() * normalized.to(hidden_sBH.dtype)

    def _weight(self) -> torch.Tensor:
        # Each rank sees its slice of the sequence alone, so the gradient must be summed over the tensor-parallel ranks.
        return copy_to_tensor_model_parallel_region(self.weight) if self.sequence_parallel else self.weight


class Embedding(torch.nn.Module):
    """Token ids to hidden states: the first pipeline layer. Holds the table that a tied head reads, too."""

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

    def forward(self, inputs: Carried) -> Carried:
        """Hidden states, shape [s, B, H], for token ids of shape [B, S]."""
        embedded = self.word_embeddings(hidden_of(inputs))
        return beside(inputs, embedded if self.sequence_parallel else embedded.transpose(0, 1).contiguous())

    @property
    def weight(self) -> torch.Tensor:
        """This rank's rows of the table, shape [V, H]."""
        return self.word_embeddings.weight


class PreNormLayer(torch.nn.Module):
    """One decoder layer: attention and MLP each read a normalized copy and add to the residual stream."""

    def __init__(self, config: TransformerConfig, *, layer_number: int, rotary: Rotary, documents: Documents) -> None:
        super().__init__()
        self.documents = documents
        norm = {"epsilon": config.layernorm_epsilon, "sequence_parallel": config.sequence_parallel}
        self.rotary = rotary
        # Rotation covers the whole sequence: under sequence parallelism it is gathered before the queries are made.
        self.sequence_slices = config.tensor_model_parallel_size if config.sequence_parallel else 1
        self.input_norm = RMSNorm(config.hidden_size, **norm)
        self.self_attention = SelfAttention(
            config,
            SelfAttentionSubmodules(
                linear_qkv=ColumnParallelLinear, core_attention=SdpaCoreAttention, linear_proj=RowParallelLinear
            ),
            layer_number,
            attn_mask_type=AttnMaskType.causal,
        )
        self.post_attention_norm = RMSNorm(config.hidden_size, **norm)
        self.mlp = MLP(
            config,
            MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear),
            ffn_hidden_size=config.ffn_hidden_size,
        )

    def forward(self, inputs: Carried) -> Carried:
        """The residual stream after this layer, same shape, [s, B, H]."""
        hidden_sBH = hidden_of(inputs)
        rotary_S11D = self.rotary(hidden_sBH.shape[0] * self.sequence_slices, hidden_sBH.device)
        attended_sBH, _ = self.self_attention(
            self.input_norm(hidden_sBH),
            self.documents.attention_mask(inputs),
            rotary_pos_emb=self.documents.angles(inputs, rotary_S11D),
        )
        hidden_sBH = hidden_sBH + attended_sBH
        transformed_sBH, _ = self.mlp(self.post_attention_norm(hidden_sBH))
        return beside(inputs, hidden_sBH + transformed_sBH)


class FinalNorm(RMSNorm):
    """The norm before the head, behind which documents need not be told apart any more."""

    def forward(self, inputs: Carried) -> torch.Tensor:
        """Normalized hidden states, shape [s, B, H]."""
        return super().forward(hidden_of(inputs))


class Head(torch.nn.Module):
    """Hidden states to logits over this rank's vocabulary: the last pipeline layer.

    A tied head holds no weight of its own: it is called with the embedding's.
    """

    def __init__(self, config: TransformerConfig, *, vocab_size: int, tied: bool) -> None:
        super().__init__()
        padded = padded_vocab_size(vocab_size, config.tensor_model_parallel_size)
        self.output_layer = ColumnParallelLinear(
            config.hidden_size,
            padded,
            config=config,
            init_method=config.init_method,
            bias=False,
            gather_output=False,
            skip_weight_param_allocation=tied,
        )
        rows = padded // config.tensor_model_parallel_size
        self.num_real = min(max(vocab_size - parallel_state.get_tensor_model_parallel_rank() * rows, 0), rows)

    def forward(self, hidden_sBH: torch.Tensor, weight_VH: torch.Tensor | None = None) -> torch.Tensor:
        """Logits, shape [S, B, V]; those of the vocabulary's padding are the least finite number."""
        logits_SBV, _ = self.output_layer(hidden_sBH, weight=weight_VH)
        if self.num_real < logits_SBV.shape[-1]:
            logits_SBV[..., self.num_real :] = torch.finfo(logits_SBV.dtype).min
        return logits_SBV


class NextTokenLoss:
    """Cross-entropy in nats per label, fp32 scalar; each tensor-parallel rank holds its slice of the logits.

    Labels that are IGNORED do not count. The mean of several micro-batches' losses is the mean over all their labels
    if `num_labels` is what each of them has on average.
    """

    num_labels = 1.0

    def __call__(self, logits_SBV: torch.Tensor, labels_BS: torch.Tensor) -> torch.Tensor:
        labels_SB = labels_BS.transpose(0, 1).contiguous()
        losses_SB = vocab_parallel_cross_entropy(logits_SBV, labels_SB)
        return (losses_SB * (labels_SB != IGNORED)).sum() / self.num_labels
