"""What is wrong with one value of a run config, worded as `section.key=value is wrong because ...; do ...`."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.schema import LISTS, SECTIONS, Section

# pydantic's error type -> (why, what to do), filled from the error's own context.
WORDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "int_type": ("it is not a whole number", "write a whole number"),
        "float_type": ("it is not a number", "write a number"),
        "bool_type": ("it is neither true nor false", "write true or false"),
        "string_type": ("it is not text", "write text, in quotes if YAML reads it as something else"),
        "string_too_short": ("it is empty", "give a path"),
        "source_type": ("it is neither a path nor a list of sources", "give a path"),
        "tuple_type": ("it is not a list", "write a list"),
        "dict_type": ("it is not a table of names and numbers", "write `name: number` lines below it"),
        "too_short": ("it is empty", "name one at least"),
        "literal_error": ("only {expected} can be used", "choose one of them"),
        "finite_number": ("it is not a finite number", "write a finite number"),
        "greater_than": ("it must be above {gt}", "raise it"),
        "greater_than_equal": ("it must be {ge} or more", "set it to {ge} or more"),
        "less_than": ("it must be below {lt}", "lower it"),
        "less_than_equal": ("it must be {le} or less", "set it to {le} or less"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with a config.

    `keys` are the dotted keys to blame. `offers` are values that are legal if everything else stays as it is:
    dotted key -> the nearest ones, ascending.
    """

    text: str
    keys: frozenset[str] = frozenset()
    offers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


def wrong(key: str, value: Any, because: str, do: str) -> Problem:
    """The problem of one value, in the project's wording."""
    return Problem(text=f"{key}={shown(value)} is wrong because {because}; {do}.", keys=frozenset({top_key(key)}))


def top_key(key: str) -> str:
    """The `section.key` that a dotted key is or lies in: `data.train` for `data.train.0.weight`."""
    return ".".join(key.split(".")[:2])


def shown(value: Any) -> str:
    """`value` as one would write it in the YAML file, on one line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return value if isinstance(value, str) and value else repr(value)


def from_validation(error: ValidationError) -> list[Problem]:
    """One problem per wrong field that pydantic found."""
    return [_from_detail(detail) for detail in error.errors() if detail["type"] != "default_factory_not_called"]


def _from_detail(detail: ErrorDetails) -> Problem:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return _missing(key)
    if detail["type"] == "extra_forbidden" and "." not in key and isinstance(detail["input"], dict):
        return Problem(text=f"{key} is wrong because there is no such section; {_nearest_key(key)}")
    if detail["type"] == "extra_forbidden":
        text = f"{key}={shown(detail['input'])} is wrong because there is no such key; {_nearest_key(key)}"
        return Problem(text=text)
    if detail["type"] == "model_type":
        return _no_section(key, detail["input"])
    because, do = WORDS.get(detail["type"], (detail["msg"], "mend it"))
    context = {name: str(value).replace("'", "") for name, value in detail.get("ctx", {}).items()}
    return wrong(key, detail["input"], because.format(**context), do.format(**context))


def _no_section(key: str, value: Any) -> Problem:
    text = f"{key}={shown(value)} is wrong because {key} is a section; write its keys below `{key}:`."
    keys = [f"{key}.{name}" for name in SECTIONS[key].model_fields] if key in SECTIONS else [top_key(key)]
    return Problem(text=text, keys=frozenset(keys))


def _missing(key: str) -> Problem:
    owner, _, name = key.rpartition(".")
    meaning = (_section_at(owner).model_fields[name].description or "").rstrip(".")
    return Problem(text=f"{key} is missing ({meaning}); set it.", keys=frozenset({top_key(key)}))


def _section_at(owner: str) -> type[Section]:
    """The class of the section that a dotted key names, also of an entry of a list, `data.train.0`."""
    return SECTIONS[owner] if owner in SECTIONS else LISTS[owner.rpartition(".")[0]]


def _nearest_key(key: str) -> str:
    """What to do about an unknown key, as the end of a sentence: the nearest one, of its own section if it can be."""
    owner, _, last = key.rpartition(".")
    if owner.rpartition(".")[0] in LISTS:
        fields = _section_at(owner).model_fields
        nearest = _closest(last, fields)
        return f"did you mean {nearest}?" if nearest else f"its keys are {', '.join(fields)}."
    section, _, name = key.partition(".")
    if not name or section not in SECTIONS:
        nearest = _closest(section, SECTIONS)
        return f"did you mean {nearest}?" if nearest else f"the sections are {', '.join(SECTIONS)}."
    own = SECTIONS[section].model_fields
    everywhere = {other: owner for owner, fields in SECTIONS.items() for other in fields.model_fields}
    if name in everywhere:
        return f"did you mean {everywhere[name]}.{name}?"
    if nearest := _closest(name, own):
        return f"did you mean {section}.{nearest}?"
    if nearest := _closest(name, everywhere):
        return f"did you mean {everywhere[nearest]}.{nearest}?"
    return f"the keys of {section} are {', '.join(own)}."


def _closest(name: str, among: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(among), n=1, cutoff=0.6)), None)
