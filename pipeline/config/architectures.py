"""The architectures that can be trained, each named after the Hugging Face model that it is equal to.

A row says what makes an architecture; what its users may choose is in `pipeline.config.schema.ModelConfig`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

Family = Literal["gpt", "bert", "t5"]
ArchitectureName = Literal["llama", "qwen2", "qwen3", "mistral", "gpt2", "bert", "t5"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What makes an architecture.

    Attributes:
        family: decoder, encoder, or encoder-decoder: which list of layers it is.
        norm: root-mean-square or layer norm.
        positions: how tokens are told their place.
        linear_bias: every linear layer but the output layer has a bias.
        qkv_bias: those that make queries, keys and values have one.
        qk_norm: queries and keys are normalized head by head.
        activation, gated_mlp, norm_epsilon, tie_embeddings: values of `ModelConfig` where it leaves them out.
        init_std: likewise; a factor of T5's own scheme for t5.
        fixed: keys of `ModelConfig` that Hugging Face's class knows one value of.
        unread: keys of `ModelConfig` that it does not read.
    """

    family: Family
    norm: Literal["rms", "layer"] = "rms"
    positions: Literal["rotary", "learned", "relative"] = "rotary"
    linear_bias: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    activation: Activation = "silu"
    gated_mlp: bool = True
    norm_epsilon: float = 1e-5
    tie_embeddings: bool = False
    init_std: float = 0.02
    fixed: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()


ROTARY = frozenset(
    {
        *("rope_theta", "rope_scaling", "rope_factor", "rope_low_freq_factor", "rope_high_freq_factor"),
        "rope_original_seq_len",
    }
)
RELATIVE = frozenset({"num_decoder_layers", "num_relative_buckets", "max_relative_distance"})
PAIRS = frozenset({"num_token_types", "pair_head"})
DECODER_UNREAD = RELATIVE | PAIRS
NO_GROUPS = frozenset({"num_key_value_heads"})

ARCHITECTURES: Mapping[ArchitectureName, Architecture] = MappingProxyType(
    {
        "llama": Architecture(family="gpt", fixed=frozenset({"gated_mlp"}), unread=DECODER_UNREAD | {"sliding_window"}),
        "qwen2": Architecture(
            family="gpt",
            qkv_bias=True,
            norm_epsilon=1e-6,
            fixed=frozenset({"gated_mlp", "head_dim"}),
            unread=DECODER_UNREAD | {"sliding_window"},
        ),
        "qwen3": Architecture(
            family="gpt",
            qk_norm=True,
            norm_epsilon=1e-6,
            fixed=frozenset({"gated_mlp"}),
            unread=DECODER_UNREAD | {"sliding_window"},
        ),
        "mistral": Architecture(family="gpt", fixed=frozenset({"gated_mlp"}), unread=DECODER_UNREAD),
        "gpt2": Architecture(
            family="gpt",
            norm="layer",
            positions="learned",
            linear_bias=True,
            activation="gelu_tanh",
            gated_mlp=False,
            tie_embeddings=True,
            fixed=frozenset({"gated_mlp", "head_dim"}) | NO_GROUPS,
            unread=DECODER_UNREAD | ROTARY | {"sliding_window"},
        ),
        "bert": Architecture(
            family="bert",
            norm="layer",
            positions="learned",
            linear_bias=True,
            activation="gelu",
            gated_mlp=False,
            norm_epsilon=1e-12,
            tie_embeddings=True,
            fixed=frozenset({"gated_mlp", "head_dim", "tie_embeddings"}) | NO_GROUPS,
            unread=RELATIVE | ROTARY | {"sliding_window"},
        ),
        "t5": Architecture(
            family="t5",
            positions="relative",
            activation="gelu_tanh",
            norm_epsilon=1e-6,
            init_std=1.0,
            fixed=NO_GROUPS,
            unread=PAIRS | ROTARY | {"sliding_window"},
        ),
    }
)
assert ARCHITECTURES.keys() == set(get_args(ArchitectureName))
