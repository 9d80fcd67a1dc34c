"""What DeepSpeed's own JSON must agree on with the run config, and what a run cannot have of it."""

import difflib
import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from pipeline.config import deepspeed_json
from pipeline.config.deepspeed import owned_by
from pipeline.config.deepspeed_json import Json
from pipeline.config.deepspeed_keys import AUTO, KNOWN_KEYS, ONLY_VALUES, UNUSABLE_KEYS
from pipeline.config.deepspeed_optimizers import REMOVED, OptimizerRow, nearest, row_of
from pipeline.config.problems import Problem
from pipeline.config.schema import SECTIONS, RunConfig
from pipeline.errors import ConfigError

# Where `owned_by` and the rules below take numbers from.
READS = frozenset(
    f"{section}.{key}"
    for section in ("parallel", "batch", "optimizer", "precision")
    for key in SECTIONS[section].model_fields
) | {"run.device"}


def deepspeed_problems(config: RunConfig, unusable: AbstractSet[str] = frozenset()) -> list[Problem]:
    """All that is wrong with DeepSpeed's JSON of a run, each with its key, its value and the way out.

    Args:
        unusable: keys of the run config that are wrong themselves; nothing is compared with them.
    """
    if "parallel.deepspeed" in unusable:
        return []
    try:
        content = deepspeed_json.read(config)
    except ConfigError as error:
        return [Problem(text=str(error), keys=frozenset({"parallel.deepspeed"}))]
    found = list(_form(content))
    if not found and READS.isdisjoint(unusable):
        found = [*_contradictions(config, content), *_optimizer(config, content), *_offload(config, content)]
    name = config.parallel.deepspeed or "ds_configs"
    return [Problem(text=f"{name}: {text}", keys=frozenset({"parallel.deepspeed"})) for text in found]


def optimizer_refusal(config: RunConfig, content: Json, device_type: str) -> str | None:
    """Why the optimizer that the JSON names cannot run; None where it can, or none is asked for."""
    name = deepspeed_json.get(content, "optimizer.type")
    if config.optimizer.name != "deepspeed" or not isinstance(name, str):
        return None
    row = row_of(name)
    if row is None:
        return _unknown_optimizer(name)
    if row.refused:
        return f"optimizer.type={name} cannot be used: {row.refused}. {_ANOTHER}"
    if row.cuda_only and device_type == "cpu":
        return f"optimizer.type={name} cannot be used with run.device=cpu: DeepSpeed has it for CUDA alone. {_ANOTHER}"
    tensor = config.parallel.tensor_parallel_size
    if row.whole_matrices and tensor > 1:
        return (
            f"optimizer.type={name} cannot be used with parallel.tensor_parallel_size={tensor}: it looks at whole "
            "matrices, of which each rank holds a part. Set tensor_parallel_size=1."
        )
    return _with_zero(config, content, name, row)


def unread_optimizer_keys(config: RunConfig) -> Iterator[tuple[str, bool, str]]:
    """The keys of the optimizer section that the JSON's optimizer does not have, and why: (key, True, reason)."""
    if config.optimizer.name != "deepspeed":
        return
    try:
        name = str(deepspeed_json.get(deepspeed_json.read(config), "optimizer.type"))
    except ConfigError:
        return  # which `deepspeed_problems` tells
    row = row_of(name)
    for setting, keys in (("betas", ("beta1", "beta2")), ("eps", ("epsilon",))):
        for key in keys if row and setting not in row.takes else ():
            yield f"optimizer.{key}", True, f"{name} has no {setting}"


_ANOTHER = "Name another one, or set optimizer.name=adamw."


def _unknown_optimizer(name: str) -> str:
    if name.lower() in REMOVED:
        return f"optimizer.type={name} cannot be used: DeepSpeed 0.19 no longer has it. {_ANOTHER}"
    known = nearest(name)
    hint = f"did you mean {known}?" if known else "name one of torch.optim, or one that DeepSpeed has."
    return f"optimizer.type={name} is wrong because neither DeepSpeed nor torch.optim has it; {hint}"


def _with_zero(config: RunConfig, content: Json, name: str, row: OptimizerRow) -> str | None:
    stage, dtype = config.parallel.zero_stage, config.precision.dtype
    if stage == 0:
        return None
    if row.not_with_zero:
        ways = "Set zero_stage=0" if dtype == "fp32" else "Set zero_stage=0 and dtype=fp32"
        return f"optimizer.type={name} cannot be used with parallel.zero_stage={stage}: {row.not_with_zero}. {ways}."
    if name.lower() == "muon" and (refusal := _muon_with_zero(config, content)):
        return f"optimizer.type={name} cannot be used with {refusal}"
    if not row.is_tested and content.get("zero_allow_untested_optimizer") is not True:
        return (
            f"optimizer.type={name} is one that DeepSpeed has not tried with ZeRO (parallel.zero_stage={stage}). Write "
            '"zero_allow_untested_optimizer": true to use it all the same: it treats each number alone, so that '
            "ZeRO changes nothing for it."
        )
    return None


def _muon_with_zero(config: RunConfig, content: Json) -> str | None:
    """What of the run DeepSpeed's Muon cannot go with under ZeRO, and the way out."""
    stage, stages = config.parallel.zero_stage, config.parallel.pipeline_parallel_size
    if stages > 1:
        return (
            f"parallel.zero_stage={stage} and parallel.pipeline_parallel_size={stages}: DeepSpeed's ranks wait for "
            "each other for ever. Set pipeline_parallel_size=1, or zero_stage=0 and dtype=fp32."
        )
    if stage == 1 and config.precision.dtype == "bf16":
        return (
            "parallel.zero_stage=1 and precision.dtype=bf16: DeepSpeed's optimizer for these has no place for it. Set "
            "zero_stage=2."
        )
    if stage == 3 and deepspeed_json.get(content, "zero_optimization.reduce_scatter") is not False:
        return (
            "parallel.zero_stage=3 unless each rank has whole gradients. Write "
            '"zero_optimization": {"reduce_scatter": false}, or set zero_stage=2.'
        )
    return None


def _form(content: Json) -> Iterator[str]:
    """Keys that are unknown or unusable, sections that are none, values that no run can have."""
    for key, value in _keys(content):
        section, _, name = key.rpartition(".")
        if key in UNUSABLE_KEYS:
            yield f"{_shown(key, value)} cannot be used: {UNUSABLE_KEYS[key]}. Leave it out."
        elif section in KNOWN_KEYS and name not in KNOWN_KEYS[section]:
            yield f"{_shown(key, value)} is wrong because DeepSpeed has no such key; {_nearest_key(section, name)}"
        elif key in (*KNOWN_KEYS, "pipeline", "optimizer.params") and not isinstance(value, dict) and value != AUTO:
            yield f'{_shown(key, value)} is wrong because it is a section; write {{...}}, or "auto".'
        elif key in ONLY_VALUES and value not in (*ONLY_VALUES[key][0], AUTO):
            legal = " or ".join(json.dumps(one) for one in ONLY_VALUES[key][0])
            yield f'{_shown(key, value)} cannot be used: {ONLY_VALUES[key][1]}. Write {legal}, or "auto".'


def _keys(content: Json, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with its value, sections before what is in them; nothing below an unusable section."""
    for name, value in content.items():
        key = f"{path}.{name}".lstrip(".")
        yield key, value
        if isinstance(value, dict) and key not in UNUSABLE_KEYS:
            yield from _keys(value, key)


def _nearest_key(section: str, name: str) -> str:
    known = KNOWN_KEYS[section]
    for other, keys in KNOWN_KEYS.items():
        if name in keys:
            return f"did you mean {f'{other}.{name}'.lstrip('.')}?"
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return (
        f"did you mean {close[0]}?" if close else f"leave it out{'' if section else ', DeepSpeed would read past it'}."
    )


def _contradictions(config: RunConfig, content: Json) -> Iterator[str]:
    """What the JSON says differently from the run config."""
    for owned in owned_by(config, content, config.run.device):
        said = deepspeed_json.get(content, owned.key)
        if not owned.run or said in (None, AUTO) or _same(said, owned.value):
            continue
        yield f'{_shown(owned.key, said)} contradicts {owned.run}. Write "auto", or make them equal.'
    param_dtype = deepspeed_json.get(content, "data_types.param_dtype")
    if param_dtype not in (None, AUTO, config.precision.dtype):
        key = _shown("data_types.param_dtype", param_dtype)
        yield f"{key} contradicts precision.dtype={config.precision.dtype}. Leave it out."


def _same(said: Any, ours: Any) -> bool:
    """Whether two values are equal; true is not 1, and 1 is 1.0."""
    return said == ours and isinstance(said, bool) == isinstance(ours, bool)


def _optimizer(config: RunConfig, content: Json) -> Iterator[str]:
    """What is wrong with who makes the optimizer, and with the one that the JSON names."""
    said = content.get("optimizer")
    asked = said not in (None, AUTO)
    if config.optimizer.name == "adamw" and asked:
        kind = deepspeed_json.get(content, "optimizer.type")
        yield (
            f"optimizer={kind} is set, but optimizer.name=adamw of the run config builds its own. Set "
            'optimizer.name=deepspeed to have the one that the JSON names, or write "auto".'
        )
    if config.optimizer.name == "deepspeed" and not isinstance(deepspeed_json.get(content, "optimizer.type"), str):
        yield (
            "optimizer.type is missing, and optimizer.name=deepspeed of the run config takes the optimizer from here. "
            'Write "optimizer": {"type": "AdamW"} into the JSON of parallel.deepspeed, or set optimizer.name=adamw.'
        )
    if refusal := optimizer_refusal(config, content, config.run.device):
        yield refusal


def _offload(config: RunConfig, content: Json) -> Iterator[str]:
    """What is wrong with what is to be moved to the CPU."""
    stage = config.parallel.zero_stage
    for part, first in (("optimizer", 1), ("param", 3)):
        key = f"zero_optimization.offload_{part}.device"
        if deepspeed_json.get(content, key) == "cpu" and stage < first:
            yield (
                f'{key}="cpu" cannot be used with parallel.zero_stage={stage}: DeepSpeed moves it from ZeRO {first} '
                f"on. Set zero_stage={first}, or leave it out."
            )


def _shown(key: str, value: Any) -> str:
    """`key=value` as JSON has it, cut where it is long."""
    text = json.dumps(value)
    return f"{key}={text if len(text) <= 60 else text[:57] + '...'}"
