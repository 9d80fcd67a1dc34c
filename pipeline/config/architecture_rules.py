"""What an architecture lets its user choose, as data."""

from collections.abc import Iterator
from functools import partial

from pipeline.config.rule import Rule, value_of
from pipeline.config.schema import ModelConfig, RunConfig


def _only_value(model: ModelConfig, key: str) -> object:
    """The value of `key` that Hugging Face's class of this architecture stands for."""
    if key == "head_dim":
        return model.hidden_size // model.num_attention_heads
    if key == "num_key_value_heads":
        return model.num_attention_heads
    return getattr(model.made, key)


def _differs(key: str, config: RunConfig) -> bool:
    model = config.model
    return key in model.made.fixed and getattr(model, key) != _only_value(model, key)


def _why_it_may_not(key: str, config: RunConfig) -> str:
    model = config.model
    return (
        f"model.{key}={value_of(config, f'model.{key}')} is wrong because with model.architecture={model.architecture} "
        f"it is {_only_value(model, key)}"
    )


FIXED_KEY_RULES = tuple(
    Rule(
        reads=(f"model.{key}", "model.architecture", "model.hidden_size", "model.num_attention_heads"),
        broken=partial(_differs, key),
        because=partial(_why_it_may_not, key),
        do="; leave it out, or choose another model.architecture.",
    )
    for key in ("gated_mlp", "head_dim", "num_key_value_heads", "tie_embeddings")
)
ARCHITECTURE_RULES: tuple[Rule, ...] = (
    *FIXED_KEY_RULES,
    Rule(
        reads=("model.rope_scaling", "model.rope_low_freq_factor", "model.rope_high_freq_factor"),
        broken=lambda config: (
            config.model.rope_scaling == "llama3"
            and config.model.rope_high_freq_factor <= config.model.rope_low_freq_factor
        ),
        because=lambda config: (
            f"model.rope_high_freq_factor={config.model.rope_high_freq_factor} is wrong because it must be above "
            f"model.rope_low_freq_factor={config.model.rope_low_freq_factor}: wavelengths between "
            "rope_original_seq_len / these two are stretched in part"
        ),
        do="; Llama 3.1 has 4.0 and 1.0.",
    ),
)


def unread_keys(config: RunConfig) -> Iterator[tuple[str, bool, str]]:
    """The keys of the model section that its architecture does not read, and why: (key, True, reason)."""
    model = config.model
    for key in sorted(model.made.unread):
        yield f"model.{key}", True, f"model.architecture={model.architecture} does not read it"
    if model.made.positions == "rotary":
        yield from _idle_rope_keys(model)


def _idle_rope_keys(model: ModelConfig) -> Iterator[tuple[str, bool, str]]:
    scaling = model.rope_scaling
    yield "model.rope_factor", scaling == "none", "model.rope_scaling=none stretches nothing"
    yield "model.rope_scaling", model.rope_factor == 1.0, "model.rope_factor=1.0 stretches nothing"
    for key in ("rope_low_freq_factor", "rope_high_freq_factor", "rope_original_seq_len"):
        yield f"model.{key}", scaling != "llama3", f"model.rope_scaling={scaling} does not read it"
