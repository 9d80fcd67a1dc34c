"""A rule that several values of a run config keep together, and the legal values nearest to one that breaks it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.problems import Problem
from pipeline.config.schema import SECTIONS, RunConfig

MAX_TRIES = 200  # values tried on each side of a wrong one; beyond them nothing is offered on that side


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One agreement between values.

    Attributes:
        reads: dotted keys of all values that `broken` depends on. The rule is left out while one of them is itself
            wrong, and a value is offered for one of them only if this rule accepts it.
        because: the sentence up to the way out: `section.key=value is wrong because ...`.
        do: the way out with its punctuation; empty where numbers are offered.
        steps: the keys to offer numbers for, each with the distance between the numbers that are tried.
    """

    reads: tuple[str, ...]
    broken: Callable[[RunConfig], bool]
    because: Callable[[RunConfig], str]
    do: str = ""
    steps: Callable[[RunConfig], Mapping[str, int]] = lambda _: {}


def multiple(
    key: str, *, of: Sequence[str], because: str, only_if: Callable[[RunConfig], bool] | None = None, reads: str = ""
) -> Rule:
    """The rule that the value of `key` is a multiple of the product of the values of `of`.

    Args:
        because: why that must be.
        only_if: where the rule holds; it may read the key `reads`.
    """

    def unit(config: RunConfig) -> int:
        return math.prod(value_of(config, name) for name in of)

    def broken(config: RunConfig) -> bool:
        return (only_if is None or only_if(config)) and value_of(config, key) % unit(config) != 0

    def sentence(config: RunConfig) -> str:
        numbers = " x ".join(f"{name}={value_of(config, name)}" for name in of)
        total = f" = {unit(config)}" if len(of) > 1 else ""
        return f"{key}={value_of(config, key)} is wrong because it must be a multiple of {numbers}{total} ({because})"

    return Rule(
        reads=(key, *of, *([reads] if reads else [])),
        broken=broken,
        because=sentence,
        steps=lambda config: {key: unit(config)} | dict.fromkeys(of, 1),
    )


def problem(rule: Rule, config: RunConfig, rules: Sequence[Rule]) -> Problem:
    """The broken `rule` in words, offering values that all `rules` accept."""
    steps = rule.steps(config)
    found = {key: nearest_legal(config, key, step, rules) for key, step in steps.items()}
    offers = {key: values for key, values in found.items() if values}
    ways = [f"{key}={' or '.join(map(str, values))}" for key, values in offers.items()]
    do = rule.do or (f"; set {', or '.join(ways)}." if ways else f"; change {' and '.join(steps)} together.")
    return Problem(text=rule.because(config) + do, keys=frozenset(rule.reads), offers=offers)


def nearest_legal(config: RunConfig, key: str, step: int, rules: Sequence[Rule]) -> tuple[int, ...]:
    """The values of `key` next below and above its own, among the multiples of `step`, that all `rules` accept."""
    value = value_of(config, key)
    concerned = [rule for rule in rules if key in rule.reads]

    def first_of(candidates: range) -> Iterator[int]:
        for candidate in candidates[:MAX_TRIES]:
            changed = with_value(config, key, candidate)
            if not any(rule.broken(changed) for rule in concerned):
                yield candidate
                return

    start = value // step * step
    below = range(start if start < value else start - step, 0, -step)
    above = range(start + step, start + (MAX_TRIES + 1) * step, step)
    return (*first_of(below), *first_of(above))


def value_of(config: RunConfig, key: str) -> Any:
    """The value behind a dotted key."""
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def default_of(config: RunConfig, key: str) -> Any:
    """What is taken where a dotted key is left out, which may depend on others of its section."""
    section, name = key.split(".")
    values = getattr(config, section).__dict__
    return SECTIONS[section].model_fields[name].get_default(call_default_factory=True, validated_data=values)


def with_value(config: RunConfig, key: str, value: Any) -> RunConfig:
    """`config` with one value replaced and the fields that derive from it derived anew; nothing is checked."""
    section_name, name = key.split(".")
    section = getattr(config, section_name)
    given = section.model_fields_set | {name}
    values = {**section.__dict__, name: value}
    for field, info in type(section).model_fields.items():
        if info.default_factory and field not in given:
            values[field] = info.default_factory(values)
    return config.model_copy(update={section_name: section.model_construct(_fields_set=given, **values)})
