"""The door through which run configs come: read, checked in full, and reported with every problem at once."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from pipeline.config import dataset
from pipeline.config.deepspeed_rules import deepspeed_problems
from pipeline.config.problems import Problem, from_validation
from pipeline.config.rules import broken_rules
from pipeline.config.schema import LISTS, SECTIONS, RunConfig, Section
from pipeline.config.source import apply_overrides, read_file
from pipeline.errors import ConfigError


def load(
    path: Path | str, overrides: Iterable[str] = (), *, check_data: bool = True, for_training: bool = True
) -> RunConfig:
    """The run config in a YAML file, with `section.key=value` overrides.

    Args:
        overrides: values in YAML; a later one wins.
        check_data: look at the data sets too: they must be whole and fit the model, and they give
            `model.vocab_size` where it is left out.
        for_training: the model must be one that can be trained on the samples; False is for a look at these.

    Raises:
        ConfigError: with all problems, each naming its dotted key, the reason and the way out.
    """
    raw, problems = read_file(Path(path))
    problems += apply_overrides(raw, overrides)
    return _build(raw, problems, check_data=check_data, for_training=for_training)


def build(raw: Mapping[str, Any], *, check_data: bool = True, for_training: bool = True) -> RunConfig:
    """The run config of plain sections, `{"run": {"dir": ...}, ...}`, checked like one that `load` reads."""
    return _build(dict(raw), [], check_data=check_data, for_training=for_training)


def resolved(config: RunConfig) -> dict[str, Any]:
    """Plain sections with every default filled in; `build` of them is equal to `config`.

    What follows from other sections (the accumulation steps, the end of the decay) stays null, so that a resolved
    config can be run with another number of ranks or steps.
    """
    return config.model_dump(mode="json")


def to_yaml(config: RunConfig) -> str:
    """`resolved(config)` as a YAML file; `load` of it is equal to `config`."""
    text: str = yaml.safe_dump(resolved(config), sort_keys=False)
    return text


def _build(raw: dict[str, Any], problems: list[Problem], *, check_data: bool, for_training: bool = True) -> RunConfig:
    unusable: frozenset[str] = frozenset()
    raw = {name: {} for name in SECTIONS} | {name: {} if value is None else value for name, value in raw.items()}
    found = dataset.read(raw["data"]) if check_data else {}
    if check_data:
        raw["model"] = dataset.with_vocab_size(raw["model"], found)
    raw["model"] = _with_pair_head(raw["model"], raw["objective"])
    try:
        config = RunConfig.model_validate(raw)
    except ValidationError as error:
        wrong_fields = from_validation(error)
        problems += wrong_fields
        unusable = unusable.union(*(problem.keys for problem in wrong_fields))
        config = _partial(raw, unusable)
    problems += broken_rules(config, unusable, for_training=for_training)
    problems += deepspeed_problems(config, unusable) if check_data and for_training else []
    problems += dataset.problems(config, found, unusable)
    if problems:
        raise ConfigError(*(str(problem) for problem in problems))
    return config


def _with_pair_head(model: Any, objective: Any) -> Any:
    """The `model` section with what classifies the pairs of the objective, where it does not say."""
    if not isinstance(model, dict) or not isinstance(objective, dict) or model.get("pair_head") is not None:
        return model
    is_bert = model.get("architecture") == "bert"
    return model | {"pair_head": is_bert and objective.get("pairs", "none") != "none"}


def _partial(raw: Mapping[str, Any], unusable: frozenset[str]) -> RunConfig:
    """`raw` with a stand-in for each unusable value, so that rules which do not read it can still be checked."""
    sections: dict[str, Any] = {}
    for name, section in SECTIONS.items():
        given = raw[name] if isinstance(raw[name], dict) else {}
        usable = {key: value for key, value in given.items() if key in section.model_fields}
        stand_ins = {
            key: 1 if field.is_required() else field.get_default() or 1
            for key, field in section.model_fields.items()
            if f"{name}.{key}" in unusable
        }
        entries = {key: _entries(section, key, usable[key]) for key in usable if f"{name}.{key}" in LISTS}
        sections[name] = section.model_construct(**usable | entries | stand_ins)
    return RunConfig.model_construct(**sections)


def _entries(section: type[Section], key: str, given: Any) -> Any:
    """A list of sections as its class has it; what is wrong in it was reported, and no rule reads it."""
    try:
        return TypeAdapter(section.model_fields[key].rebuild_annotation()).validate_python(given)
    except ValidationError:
        return ()
