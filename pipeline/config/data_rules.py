"""What the sources, phases and objective of a run must agree on, as data."""

from collections import Counter
from collections.abc import Iterator
from functools import partial

from pipeline.config.rule import Rule
from pipeline.config.schema import RunConfig

KEYS = ("data.train", "data.temperature", "data.phases")


def _names(config: RunConfig) -> list[str]:
    return [source.name for source in config.data.train]


def _same_names(config: RunConfig) -> list[str]:
    return [name for name, count in Counter(_names(config)).items() if count > 1]


def _ways_to_weigh(config: RunConfig) -> list[str]:
    """How the config says what the share of each source is."""
    data = config.data
    found = ["data.temperature"] if data.temperature is not None else []
    found += ["weight"] if any(source.weight is not None for source in data.train) else []
    return found + (["tokens"] if any(source.tokens is not None for source in data.train) else [])


def _is_partly_weighed(config: RunConfig) -> bool:
    """Whether some sources have what says their share, and others have not."""
    sources = config.data.train
    given = [source.weight is not None or source.tokens is not None for source in sources]
    if config.data.temperature is not None:
        return False
    return len(sources) > 1 and not all(given)


def _has_no_weight(config: RunConfig) -> bool:
    sources = config.data.train
    return bool(sources) and all(source.weight == 0 for source in sources)


def _unknown_names(config: RunConfig) -> Iterator[tuple[str, str]]:
    """The key and the value of each name of a source that does not exist."""
    names = set(_names(config))
    for number, source in enumerate(config.data.train):
        if source.replaced_by is not None and (source.replaced_by not in names or source.replaced_by == source.name):
            yield f"data.train.{number}.replaced_by", source.replaced_by
    for number, phase in enumerate(config.data.phases):
        for name in phase.weights:
            if name not in names:
                yield f"data.phases.{number}.weights", name


def _wrong_phase(config: RunConfig) -> str | None:
    """Why the first wrong phase is wrong."""
    last = 0
    for number, (phase, start) in enumerate(zip(config.data.phases, config.phase_starts, strict=True)):
        key = f"data.phases.{number}"
        if (phase.from_step is None) == (phase.from_sample is None):
            return f"{key} is wrong because one of from_step and from_sample says when it begins"
        if not any(phase.weights.values()):
            return f"{key}.weights={phase.weights} is wrong because no source has a weight above 0"
        if start <= last:
            return f"{key} is wrong because it begins at sample {start}, not after sample {last}"
        last = start
    return None


def _why_unknown(config: RunConfig) -> str:
    key, name = next(_unknown_names(config))
    return f"{key}={name} is wrong because it is not the name of another source"


def _is_wrong_for_encoders(name: str, config: RunConfig) -> bool:
    return bool(getattr(config.data, name)) and config.objective.name != "causal"


def _why_wrong_for_encoders(name: str, config: RunConfig) -> str:
    return f"data.{name}=true cannot be used with objective.name={config.objective.name}: it is for decoders"


DATA_RULES: tuple[Rule, ...] = (
    Rule(
        reads=("data.train",),
        broken=lambda config: bool(_same_names(config)),
        because=lambda config: f"data.train is wrong because {_same_names(config)[0]!r} names two sources",
        do="; give them names of their own, or name one source once.",
    ),
    Rule(
        reads=("data.train", "data.temperature"),
        broken=lambda config: len(_ways_to_weigh(config)) > 1,
        because=lambda config: f"{' and '.join(_ways_to_weigh(config))} cannot be used together in data.train",
        do=": each says what the shares are. Keep one of them.",
    ),
    Rule(
        reads=("data.train", "data.temperature"),
        broken=_is_partly_weighed,
        because=lambda _: "data.train is wrong because it does not say what the share of each source is",
        do="; give each a weight, or each its tokens, or set data.temperature=1 for shares by size.",
    ),
    Rule(
        reads=("data.train",),
        broken=_has_no_weight,
        because=lambda _: "data.train is wrong because its weights sum up to 0",
        do="; give one source a weight above 0.",
    ),
    Rule(
        reads=KEYS,
        broken=lambda config: any(_unknown_names(config)),
        because=_why_unknown,
        do="; write the name, or the path, of one in data.train.",
    ),
    Rule(
        reads=("data.phases", "batch.global_batch_size"),
        broken=lambda config: _wrong_phase(config) is not None,
        because=lambda config: str(_wrong_phase(config)),
        do="; mend it, or leave it out.",
    ),
    Rule(
        reads=("objective.mask_token_share", "objective.random_token_share"),
        broken=lambda config: config.objective.mask_token_share + config.objective.random_token_share > 1,
        because=lambda config: (
            f"objective.mask_token_share={config.objective.mask_token_share} and "
            f"objective.random_token_share={config.objective.random_token_share} are wrong because they sum up to more "
            "than 1"
        ),
        do="; lower one of them.",
    ),
    *(
        Rule(
            reads=(f"data.{name}", "objective.name"),
            broken=partial(_is_wrong_for_encoders, name),
            because=partial(_why_wrong_for_encoders, name),
            do=f". Set data.{name}=false.",
        )
        for name in ("packing", "reset_positions", "attend_within_documents")
    ),
    Rule(
        reads=("model.seq_len", "objective.name", "objective.pairs"),
        broken=lambda config: config.objective.name != "causal" and config.model.seq_len < 8,
        because=lambda config: (
            f"model.seq_len={config.model.seq_len} is wrong because special tokens leave no room for text "
            f"(objective.name={config.objective.name})"
        ),
        do="; set it to 8 or more.",
    ),
)

# Family -> what it is trained on.
OBJECTIVE_OF = {"gpt": "causal", "bert": "masked", "t5": "span"}
ARCHITECTURE_FOR = {"causal": "llama, qwen2, qwen3, mistral or gpt2", "masked": "bert", "span": "t5"}


def _why_another_objective(config: RunConfig) -> str:
    return (
        f"objective.name={config.objective.name} cannot be trained with "
        f"model.architecture={config.model.architecture}, which learns objective.name="
        f"{OBJECTIVE_OF[config.model.family]}; for this objective model.architecture is "
        f"{ARCHITECTURE_FOR[config.objective.name]}"
    )


# A sample can be looked at whatever the model is; trained on only by a model that is made for it.
TRAINING_RULES: tuple[Rule, ...] = (
    Rule(
        reads=("objective.name", "model.architecture"),
        broken=lambda config: config.objective.name != OBJECTIVE_OF[config.model.family],
        because=_why_another_objective,
        do=". Change one of them; `pretrain data preview` shows the samples of any objective.",
    ),
    Rule(
        reads=("objective.name", "objective.pairs", "model.num_token_types"),
        broken=lambda config: config.objective.reads_pairs and config.model.num_token_types < 2,
        because=lambda config: (
            f"model.num_token_types={config.model.num_token_types} is wrong because objective.pairs="
            f"{config.objective.pairs} tells two segments apart"
        ),
        do="; set it to 2 or more.",
    ),
    Rule(
        reads=("objective.name", "objective.pairs", "model.architecture", "model.pair_head"),
        broken=lambda config: (
            config.model.pair_head != (config.model.family == "bert" and config.objective.reads_pairs)
        ),
        because=lambda config: (
            f"model.pair_head={str(config.model.pair_head).lower()} is wrong because objective.pairs="
            f"{config.objective.pairs} {'has pairs' if config.objective.reads_pairs else 'has no pairs'} to classify"
        ),
        do="; leave it out.",
    ),
)
