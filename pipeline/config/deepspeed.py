"""The dict that DeepSpeed is started with: its JSON, with what the run config owns filled in.

The JSON is `ds_configs/zeroN.json`, or the file of `parallel.deepspeed`. A key that the run config owns is filled in
where the JSON has "auto" or leaves it out; what it says otherwise must agree (`pipeline.config.deepspeed_rules`).
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pipeline.config import deepspeed_json
from pipeline.config.deepspeed_json import Json
from pipeline.config.deepspeed_keys import AUTO
from pipeline.config.deepspeed_optimizers import row_of
from pipeline.config.schema import RunConfig

NEVER = 1_000_000_000  # steps; DeepSpeed divides by steps_per_print, so that it cannot be 0 or null


@dataclass(frozen=True, kw_only=True)
class Owned:
    """A key of DeepSpeed's JSON whose value the run config gives.

    Attributes:
        run: where it comes from, `section.key=value`; empty where the JSON may say otherwise.
    """

    key: str
    value: Any
    run: str = ""


def deepspeed_config(config: RunConfig, *, device_type: str | None = None) -> Json:
    """DeepSpeed's config of a run, as a plain dict; it needs no further change.

    Args:
        device_type: "cuda" or "cpu", where the ranks run; None takes run.device, and its auto is taken for a CPU.

    What DeepSpeed 0.19 makes of it: bf16 with ZeRO 1 runs its BF16_Optimizer, bf16 and fp16 with ZeRO 2 or 3 (fp16 with
    ZeRO 1, and all with an optimizer on the CPU, too) the ZeRO optimizers. All of them keep fp32 master weights.

    Raises:
        ConfigError: the JSON cannot be read.
    """
    return filled(deepspeed_json.read(config), config, device_type=device_type)


def filled(content: Json, config: RunConfig, *, device_type: str | None = None) -> Json:
    """`content` with what the run config owns, and without any "auto": DeepSpeed has its own defaults for the rest."""
    made = deepcopy(content)
    if config.optimizer.name != "deepspeed":
        made.pop("optimizer", None)
    for owned in owned_by(config, made, device_type or config.run.device):
        if deepspeed_json.get(made, owned.key) in (None, AUTO):
            deepspeed_json.put(made, owned.key, owned.value)
    return _without_auto(made)


def owned_by(config: RunConfig, content: Json, device_type: str) -> Iterator[Owned]:
    """What the run config says of the keys of the JSON `content`."""
    batch, dtype, clip = config.batch, config.precision.dtype, config.optimizer.grad_clip
    per_step = (
        f"batch.global_batch_size={batch.global_batch_size} / (batch.micro_batch_size={batch.micro_batch_size} x "
        f"parallel.data_parallel_size={config.parallel.data_parallel_size})={config.gradient_accumulation_steps}"
    )
    summed = f"precision.grad_accum_dtype={config.grad_accum_dtype}"
    stage = config.parallel.zero_stage
    yield Owned(
        key="train_batch_size", value=batch.global_batch_size, run=f"batch.global_batch_size={batch.global_batch_size}"
    )
    yield Owned(
        key="train_micro_batch_size_per_gpu",
        value=batch.micro_batch_size,
        run=f"batch.micro_batch_size={batch.micro_batch_size}",
    )
    yield Owned(key="gradient_accumulation_steps", value=config.gradient_accumulation_steps, run=per_step)
    yield Owned(key="gradient_clipping", value=clip, run=f"optimizer.grad_clip={clip}")
    for name in ("bf16", "fp16"):
        yield Owned(key=f"{name}.enabled", value=dtype == name, run=f"precision.dtype={dtype}")
    yield from _loss_scale(config)
    yield Owned(key="data_types.grad_accum_dtype", value=config.grad_accum_dtype, run=summed)
    yield Owned(key="communication_data_type", value=config.grad_accum_dtype, run=summed)
    yield Owned(key="steps_per_print", value=NEVER)
    yield Owned(key="zero_optimization.stage", value=stage, run=f"parallel.zero_stage={stage}")
    yield Owned(key="zero_optimization.overlap_comm", value=device_type == "cuda")
    for name in ("pipe_partitioned", "grad_partitioned"):
        yield Owned(key=f"pipeline.{name}", value=False)
    if offloads_optimizer(content):
        # Ours is built for the device that the state is on, so it is none of DeepSpeed's.
        yield Owned(key="zero_force_ds_cpu_optimizer", value=False)
    if config.optimizer.name == "deepspeed":
        yield from _optimizer(config, content, device_type)


def offloads_optimizer(content: Json) -> bool:
    """Whether the optimizer's state is to be on the CPU."""
    device = deepspeed_json.get(content, "zero_optimization.offload_optimizer.device")
    return device not in (None, AUTO, "none")


def _loss_scale(config: RunConfig) -> Iterator[Owned]:
    power = config.precision.initial_loss_scale_power
    yield Owned(key="fp16.loss_scale", value=0)  # dynamic
    yield Owned(
        key="fp16.initial_scale_power",
        value=power,
        run=f"precision.initial_loss_scale_power={power}" if config.precision.dtype == "fp16" else "",
    )


def _optimizer(config: RunConfig, content: Json, device_type: str) -> Iterator[Owned]:
    """The settings of the optimizer that the JSON names."""
    settings, name = config.optimizer, str(deepspeed_json.get(content, "optimizer.type"))
    row = row_of(name)
    takes = row.takes if row else frozenset()
    params = "optimizer.params"
    yield Owned(key=f"{params}.lr", value=settings.lr, run=f"optimizer.lr={settings.lr}")
    yield Owned(
        key=f"{params}.weight_decay",
        value=settings.weight_decay,
        run=f"optimizer.weight_decay={settings.weight_decay}",
    )
    if "betas" in takes:
        run = f"optimizer.beta1={settings.beta1} and optimizer.beta2={settings.beta2}"
        yield Owned(key=f"{params}.betas", value=[settings.beta1, settings.beta2], run=run)
    if "eps" in takes:
        yield Owned(key=f"{params}.eps", value=settings.epsilon, run=f"optimizer.epsilon={settings.epsilon}")
    if name.lower() in ("adam", "adamw", "muon"):
        # DeepSpeed's own compiles itself on a CPU at first use, and a rank that is killed meanwhile leaves a lock on
        # which every later run hangs.
        yield Owned(key=f"{params}.torch_adam", value=device_type == "cpu")


def _without_auto(content: Json) -> Json:
    return {
        key: _without_auto(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if value != AUTO
    }
