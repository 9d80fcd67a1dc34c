"""What the values of a run config must agree on, as data. Types and ranges of single values are in `schema`."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from pipeline import devices
from pipeline.config.architecture_rules import ARCHITECTURE_RULES, unread_keys
from pipeline.config.batch_rules import BATCH_RULES
from pipeline.config.data_rules import DATA_RULES, TRAINING_RULES
from pipeline.config.deepspeed_rules import unread_optimizer_keys
from pipeline.config.encoder_decoder_rules import ENCODER_DECODER_RULES
from pipeline.config.problems import Problem
from pipeline.config.rule import Rule, default_of, multiple, problem, value_of
from pipeline.config.schedule_rules import SCHEDULE_RULES, unread_schedule_keys
from pipeline.config.schema import RunConfig
from pipeline.config.stage_rules import STAGE_RULES

# Objective -> the keys that it alone reads.
OBJECTIVE_KEYS = {
    "causal": ("fim_rate", "fim_spm_share", "fim_cut"),
    "masked": (
        *("mask_rate", "mask_token_share", "random_token_share", "masking", "max_ngram", "pairs", "short_share"),
    ),
    "span": ("denoiser", "noise_density", "mean_span_length", "target_len"),
}


def broken_rules(
    config: RunConfig, unusable: AbstractSet[str] = frozenset(), *, for_training: bool = True
) -> list[Problem]:
    """The problem of every rule that `config` breaks, leaving out the rules that read an `unusable` key.

    Args:
        for_training: also whether the model can be trained on the samples.
    """
    rules = RULES + (TRAINING_RULES if for_training else ())
    usable = [rule for rule in rules if unusable.isdisjoint(rule.reads)]
    return [problem(rule, config, usable) for rule in usable if rule.broken(config)]


def ineffective_settings(config: RunConfig) -> list[str]:
    """A sentence for each value that is not its default and yet changes nothing in this run."""
    unsaved = config.checkpoint.every_steps is None
    unevaluated = config.data.validation is None
    table = (
        *_idle_objective_keys(config),
        *_idle_data_keys(config),
        *unread_keys(config),
        *unread_schedule_keys(config),
        *unread_optimizer_keys(config),
        ("checkpoint.keep_last", unsaved, "checkpoint.every_steps=null saves the last step only"),
        ("monitor.eval_every_steps", unevaluated, "data.validation=null runs no evaluation"),
        ("monitor.eval_samples", unevaluated, "data.validation=null runs no evaluation"),
        ("precision.initial_loss_scale_power", config.precision.dtype != "fp16", "only fp16 scales the loss"),
    )
    return [
        f"{key}={value_of(config, key)} has no effect because {reason}."
        for key, idle, reason in table
        if idle and value_of(config, key) != default_of(config, key)
    ]


def slow_settings(config: RunConfig) -> list[str]:
    """A sentence for each value that makes this run much slower than need be."""
    if config.precision.dtype == "fp16" and devices.resolve(config.run.device) == "cpu":
        return [
            "precision.dtype=fp16 is slow on a CPU, which computes it in fp32 and rounds: it is for proving what is to "
            "run on a GPU. precision.dtype=fp32 is faster here."
        ]
    return []


def _idle_objective_keys(config: RunConfig) -> Iterator[tuple[str, bool, str]]:
    objective = config.objective
    for name, keys in OBJECTIVE_KEYS.items():
        for key in keys:
            yield f"objective.{key}", objective.name != name, f"objective.name={objective.name} does not read it"
    yield "objective.fim_spm_share", not objective.fim_rate, "objective.fim_rate=0 moves no middle"
    yield "objective.fim_cut", not objective.fim_rate, "objective.fim_rate=0 moves no middle"
    yield "objective.max_ngram", objective.masking != "ngram", f"objective.masking={objective.masking} hides no n-grams"
    yield "objective.short_share", objective.pairs == "none", "objective.pairs=none makes none"
    for key in ("noise_density", "mean_span_length"):
        yield f"objective.{key}", objective.denoiser != "span", f"objective.denoiser={objective.denoiser} has its own"


def _idle_data_keys(config: RunConfig) -> Iterator[tuple[str, bool, str]]:
    data = config.data
    if len(data.train) == 1:
        yield "data.temperature", True, "data.train has one source"
        yield "data.phases", True, "data.train has one source"


def _heads_fit(config: RunConfig) -> bool:
    """Whether every tensor-parallel rank holds whole key/value heads, or one together with other ranks."""
    heads, size = config.model.num_key_value_heads, config.parallel.tensor_parallel_size
    return heads % size == 0 or size % heads == 0


def _has_free_heads(config: RunConfig) -> bool:
    """Whether heads of any width may be given, whatever the hidden size is."""
    model = config.model
    return model.family == "t5" or (model.architecture in ("mistral", "qwen3") and "head_dim" in model.model_fields_set)


def _head_dim_is_derived(config: RunConfig) -> bool:
    return "head_dim" not in config.model.model_fields_set


def _why_head_dim(config: RunConfig) -> str:
    model = config.model
    why = "must be even: rotary position embedding turns pairs of numbers"
    if not _head_dim_is_derived(config):
        return f"model.head_dim={model.head_dim} is wrong because it {why}"
    sizes = f"{model.hidden_size} / {model.num_attention_heads} = {model.head_dim}"
    return f"model.hidden_size={model.hidden_size} is wrong because model.head_dim = {sizes} {why}"


def _head_dim_steps(config: RunConfig) -> dict[str, int]:
    if not _head_dim_is_derived(config):
        return {"model.head_dim": 2}
    return {"model.hidden_size": config.model.num_attention_heads, "model.num_attention_heads": 1}


RULES: tuple[Rule, ...] = (
    *DATA_RULES,
    multiple(
        "model.num_attention_heads",
        of=["parallel.tensor_parallel_size"],
        because="every tensor-parallel rank holds whole heads",
    ),
    Rule(
        reads=("model.num_key_value_heads", "parallel.tensor_parallel_size"),
        broken=lambda config: "num_key_value_heads" in config.model.model_fields_set and not _heads_fit(config),
        because=lambda config: (
            f"model.num_key_value_heads={config.model.num_key_value_heads} is wrong because with "
            f"parallel.tensor_parallel_size={config.parallel.tensor_parallel_size} a rank would hold part of one: the "
            "one must be a multiple of the other"
        ),
        steps=lambda _: {"model.num_key_value_heads": 1, "parallel.tensor_parallel_size": 1},
    ),
    multiple(
        "model.num_attention_heads",
        of=["model.num_key_value_heads"],
        because="each key and value head serves the same number of query heads",
    ),
    multiple(
        "model.hidden_size",
        of=["model.num_attention_heads"],
        because="Hugging Face's model, which it is exported to, takes no other, whatever model.head_dim is",
        only_if=lambda config: not _has_free_heads(config),
        reads="model.architecture",
    ),
    Rule(
        reads=("model.head_dim", "model.hidden_size", "model.num_attention_heads", "model.architecture"),
        broken=lambda config: config.model.made.positions == "rotary" and config.model.head_dim % 2 != 0,
        because=_why_head_dim,
        steps=_head_dim_steps,
    ),
    multiple(
        "model.ffn_hidden_size",
        of=["parallel.tensor_parallel_size"],
        because="every tensor-parallel rank holds an equal part",
    ),
    *STAGE_RULES,
    *ARCHITECTURE_RULES,
    *ENCODER_DECODER_RULES,
    multiple(
        "model.seq_len",
        of=["parallel.tensor_parallel_size"],
        because="parallel.sequence_parallel=true splits the sequence over the tensor-parallel ranks",
        only_if=lambda config: config.parallel.sequence_parallel,
        reads="parallel.sequence_parallel",
    ),
    Rule(
        reads=("parallel.sequence_parallel", "parallel.tensor_parallel_size"),
        broken=lambda config: config.parallel.sequence_parallel and config.parallel.tensor_parallel_size == 1,
        because=lambda _: (
            "parallel.sequence_parallel=true is wrong because it splits the sequence over the tensor-parallel ranks, "
            "and parallel.tensor_parallel_size=1"
        ),
        do="; set parallel.sequence_parallel=false, or parallel.tensor_parallel_size=2 or more.",
    ),
    Rule(
        reads=("parallel.zero_stage", "parallel.pipeline_parallel_size"),
        broken=lambda config: config.parallel.zero_stage > 1 and config.parallel.pipeline_parallel_size > 1,
        because=lambda config: (
            f"parallel.zero_stage={config.parallel.zero_stage} cannot be used with "
            f"parallel.pipeline_parallel_size={config.parallel.pipeline_parallel_size}: "
            "DeepSpeed's pipeline engine takes ZeRO 0 or 1"
        ),
        do=". Set zero_stage=1 or pipeline_parallel_size=1.",
    ),
    *BATCH_RULES,
    Rule(
        reads=("precision.grad_accum_dtype", "precision.dtype"),
        broken=lambda config: config.precision.grad_accum_dtype not in (None, "fp32", config.precision.dtype),
        because=lambda config: (
            f"precision.grad_accum_dtype={config.precision.grad_accum_dtype} is wrong because gradients come in "
            f"precision.dtype={config.precision.dtype}"
        ),
        do="; leave it out, and fp32 is taken.",
    ),
    Rule(
        reads=("precision.dtype", "parallel.zero_stage"),
        broken=lambda config: config.precision.dtype != "fp32" and config.parallel.zero_stage == 0,
        because=lambda config: (
            f"precision.dtype={config.precision.dtype} cannot be used with parallel.zero_stage=0: DeepSpeed keeps "
            "exact fp32 master weights from ZeRO 1 on"
        ),
        do=". Set zero_stage=1, which costs nothing on one data-parallel rank, or dtype=fp32.",
    ),
    *SCHEDULE_RULES,
)
