"""DeepSpeed's JSON as it is written: the file that `parallel.deepspeed` names, read into plain dicts."""

import json
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from pipeline.config.deepspeed_keys import AUTO
from pipeline.config.schema import RunConfig
from pipeline.errors import ConfigError

Json = dict[str, Any]


def read(config: RunConfig) -> Json:
    """The JSON of a run, with its "auto": the user's, or `ds_configs/zeroN.json`.

    Raises:
        ConfigError: it cannot be read, naming file and line.
    """
    asked = config.parallel.deepspeed
    if asked is not None:
        return _read_file(Path(asked))
    name = f"zero{config.parallel.zero_stage}.json"
    found: Json = json.loads(resources.files("ds_configs").joinpath(name).read_text(encoding="utf-8"))
    return found


def get(content: Json, key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    value: Any = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def put(content: Json, key: str, value: Any) -> None:
    """Set a dotted key, in sections that are made where there are none, or where they are "auto"."""
    *sections, last = key.split(".")
    for section in sections:
        if content.get(section, AUTO) == AUTO:
            content[section] = {}
        content = content[section]
    content[last] = value


def _read_file(path: Path) -> Json:
    try:
        content = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats, parse_constant=_no_number
        )
    except OSError as error:
        raise ConfigError(
            f"parallel.deepspeed={path} cannot be read: {error.strerror}. Name DeepSpeed's JSON, or leave it out."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {error.lineno}: this is not JSON: {error.msg}.") from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{path} is not JSON that can be read: {reason}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f'{path} holds no JSON object; it starts with {{ and a key such as "zero_optimization".')
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> Json:
    found: Json = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} comes twice; keep one of them")
        found[key] = value
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
