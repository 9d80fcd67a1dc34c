"""What the schedule of a run must agree on, as data, and its keys that a decay does not read."""

from collections.abc import Iterator

from pipeline.config.rule import Rule
from pipeline.config.schema import RunConfig


def _is_wsd(config: RunConfig) -> bool:
    return config.schedule.decay == "wsd"


def _room(config: RunConfig) -> int:
    """Steps between warm-up and the end of the decay."""
    return max(config.decay_steps - config.schedule.warmup_steps, 0)


def _has_no_cooldown(config: RunConfig) -> bool:
    return _is_wsd(config) and config.schedule.cooldown_steps is None


_WSD = ("schedule.cooldown_steps", "schedule.decay", "schedule.decay_steps", "schedule.warmup_steps", "run.steps")

SCHEDULE_RULES: tuple[Rule, ...] = (
    Rule(
        reads=("schedule.warmup_steps", "run.steps"),
        broken=lambda config: config.schedule.warmup_steps > config.run.steps,
        because=lambda config: (
            f"schedule.warmup_steps={config.schedule.warmup_steps} is wrong because the run ends at "
            f"run.steps={config.run.steps}, before optimizer.lr is reached"
        ),
        do="; lower warmup_steps, or raise steps.",
    ),
    Rule(
        reads=("schedule.decay_steps", "schedule.warmup_steps"),
        broken=lambda config: (
            (config.schedule.decay_steps or config.schedule.warmup_steps) < config.schedule.warmup_steps
        ),
        because=lambda config: (
            f"schedule.decay_steps={config.schedule.decay_steps} is wrong because the decay starts after "
            f"schedule.warmup_steps={config.schedule.warmup_steps} and cannot end before"
        ),
        do="; raise decay_steps, or lower warmup_steps.",
    ),
    Rule(
        reads=("schedule.min_lr", "optimizer.lr"),
        broken=lambda config: config.schedule.min_lr > config.optimizer.lr,
        because=lambda config: (
            f"schedule.min_lr={config.schedule.min_lr} is wrong because the learning rate decays to it from "
            f"optimizer.lr={config.optimizer.lr}"
        ),
        do="; set min_lr to optimizer.lr or less.",
    ),
    Rule(
        reads=_WSD,
        broken=_has_no_cooldown,
        because=lambda config: (
            "schedule.cooldown_steps is missing: with schedule.decay=wsd the learning rate decays in so many steps "
            f"before step {config.decay_steps}; a tenth of them are {max(config.decay_steps // 10, 1)}"
        ),
        do=". Set it.",
    ),
    Rule(
        reads=_WSD,
        broken=lambda config: _is_wsd(config) and (config.schedule.cooldown_steps or 0) > _room(config),
        because=lambda config: (
            f"schedule.cooldown_steps={config.schedule.cooldown_steps} is wrong because from the end of "
            f"schedule.warmup_steps={config.schedule.warmup_steps} to step {config.decay_steps}, where the decay ends, "
            f"there are {_room(config)} steps"
        ),
        do="; set it to so many or fewer, raise decay_steps, or lower warmup_steps.",
    ),
)


def unread_schedule_keys(config: RunConfig) -> Iterator[tuple[str, bool, str]]:
    """The keys that this decay does not read, and why: (key, whether that is so, reason)."""
    decay = config.schedule.decay
    constant = decay == "constant"
    yield "schedule.min_lr", constant, "schedule.decay=constant stays at optimizer.lr"
    yield "schedule.decay_steps", constant, "schedule.decay=constant stays at optimizer.lr"
    yield "schedule.decay_steps", decay == "inverse_sqrt", "schedule.decay=inverse_sqrt has no end"
    for key in ("cooldown_steps", "cooldown"):
        yield f"schedule.{key}", decay != "wsd", f"schedule.decay={decay} has no cooldown of its own"
