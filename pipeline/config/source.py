"""A run config as it is written: the YAML file and the `a.b=c` of the command line, read into plain dicts."""

import re
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.problems import Problem
from pipeline.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number (YAML 1.1 wants 1.0e-4) and a key that comes twice is a problem."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[Problem] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first_lines: dict[str, int] = {}
        for key_node in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key_node.start_mark.line + 1
            first = first_lines.setdefault(key_node.value, line)
            if first != line:
                text = f"line {line} sets {key_node.value!r} again, after line {first}; keep one of them."
                self.problems.append(Problem(text=text))
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, ArithmeticError) as error:  # PyYAML lets Python's own through
            kind = node.tag.rpartition(":")[2]
            text = f"{reprlib.repr(node.value)} is no {kind} that can be read; quote it if it is text"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark) from error


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_file(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """The sections of a YAML file, and what is wrong with its form.

    Raises:
        ConfigError: the file cannot be read, or is no YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Name a run config (YAML).") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    value, problems = _parse(text, str(path))
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds no sections; a run config starts with lines such as `run:` and `model:`.")
    return {str(key): section for key, section in value.items()}, problems


def apply_overrides(raw: dict[str, Any], overrides: Iterable[str]) -> list[Problem]:
    """Set each `section.key=value` in `raw`; what cannot be set comes back as a problem."""
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        section, _, name = key.strip().partition(".")
        if not (equals and section and name):
            problems.append(Problem(text=f"{override!r} is not an override; write section.key=value."))
            continue
        try:
            value, found = _parse(text, override)
        except ConfigError as error:
            problems.append(Problem(text=str(error)))
            continue
        problems += found
        fields = raw.get(section) or {}
        if isinstance(fields, dict):
            raw[section] = fields | {name: value}
    return problems


def _parse(text: str, source: str) -> tuple[Any, list[Problem]]:
    try:
        loader = _Loader(text)
        return loader.get_single_data(), loader.problems
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is not YAML that can be read: it is nested too deeply.") from error
