"""What the batch sizes of a run must agree on, as data."""

from functools import partial

from pipeline.config.rule import Rule, multiple, value_of
from pipeline.config.schema import RunConfig

RAMP_UP = ("batch.ramp_up_start", "batch.ramp_up_increment", "batch.ramp_up_samples")
_UNIT = ["batch.micro_batch_size", "parallel.data_parallel_size"]


def _sequences_per_step(config: RunConfig) -> int:
    batch = config.batch
    return (batch.gradient_accumulation_steps or 0) * batch.micro_batch_size * config.parallel.data_parallel_size


def _why_accumulation(config: RunConfig) -> str:
    batch = config.batch
    return (
        f"batch.gradient_accumulation_steps={batch.gradient_accumulation_steps} is wrong because with "
        f"batch.micro_batch_size={batch.micro_batch_size} and "
        f"parallel.data_parallel_size={config.parallel.data_parallel_size} it makes {_sequences_per_step(config)} "
        f"sequences per step, not batch.global_batch_size={batch.global_batch_size}"
    )


def _is_set(key: str, config: RunConfig) -> bool:
    return value_of(config, key) is not None


def _missing(config: RunConfig) -> list[str]:
    """The keys of the ramp-up that are not set, where others are."""
    missing = [key for key in RAMP_UP if not _is_set(key, config)]
    return missing if len(missing) < len(RAMP_UP) else []


def _misses_the_end(config: RunConfig) -> bool:
    batch = config.batch
    if batch.ramp_up_start is None or batch.ramp_up_increment is None or _starts_too_high(config):
        return False
    return (batch.global_batch_size - batch.ramp_up_start) % batch.ramp_up_increment != 0


def _starts_too_high(config: RunConfig) -> bool:
    start = config.batch.ramp_up_start
    return start is not None and start >= config.batch.global_batch_size


def _unit(config: RunConfig) -> int:
    return config.batch.micro_batch_size * config.parallel.data_parallel_size


BATCH_RULES: tuple[Rule, ...] = (
    multiple(
        "batch.global_batch_size",
        of=_UNIT,
        because="every model copy runs the same number of micro-batches",
        only_if=lambda config: config.batch.gradient_accumulation_steps is None,
        reads="batch.gradient_accumulation_steps",
    ),
    Rule(
        reads=("batch.gradient_accumulation_steps", *_UNIT, "batch.global_batch_size"),
        broken=lambda config: (
            config.batch.gradient_accumulation_steps is not None
            and _sequences_per_step(config) != config.batch.global_batch_size
        ),
        because=_why_accumulation,
        steps=lambda config: {
            "batch.gradient_accumulation_steps": 1,
            "batch.global_batch_size": _sequences_per_step(config),
        },
    ),
    Rule(
        reads=RAMP_UP,
        broken=lambda config: bool(_missing(config)),
        because=lambda config: (
            f"{' and '.join(_missing(config))} {'is' if len(_missing(config)) == 1 else 'are'} missing, which a batch "
            "size that grows needs"
        ),
        do=": set ramp_up_start, ramp_up_increment and ramp_up_samples, or none of them.",
    ),
    *(
        multiple(
            key,
            of=_UNIT,
            because="so is the batch of every step while it grows",
            only_if=partial(_is_set, key),
        )
        for key in RAMP_UP[:2]
    ),
    Rule(
        reads=("batch.ramp_up_start", "batch.global_batch_size", *_UNIT),
        broken=_starts_too_high,
        because=lambda config: (
            f"batch.ramp_up_start={config.batch.ramp_up_start} is wrong because the batch size grows from there to "
            f"batch.global_batch_size={config.batch.global_batch_size}"
        ),
        steps=lambda config: {"batch.ramp_up_start": _unit(config), "batch.global_batch_size": _unit(config)},
    ),
    Rule(
        reads=("batch.ramp_up_start", "batch.ramp_up_increment", "batch.global_batch_size", *_UNIT),
        broken=_misses_the_end,
        because=lambda config: (
            f"batch.ramp_up_increment={config.batch.ramp_up_increment} is wrong because from "
            f"batch.ramp_up_start={config.batch.ramp_up_start} it does not lead to "
            f"batch.global_batch_size={config.batch.global_batch_size}"
        ),
        steps=lambda config: {
            "batch.ramp_up_increment": _unit(config),
            "batch.ramp_up_start": _unit(config),
            "batch.global_batch_size": _unit(config),
        },
    ),
)
