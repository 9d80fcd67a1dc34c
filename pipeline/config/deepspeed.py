"""The dict that DeepSpeed is started with: `ds_configs/zeroN.json`, with each "auto" filled from the run config."""

import json
from importlib import resources
from typing import Any

from pipeline.config.schema import RunConfig

NEVER = 1_000_000_000  # steps; DeepSpeed divides by steps_per_print, so that it cannot be 0 or null


def deepspeed_config(config: RunConfig, *, device_type: str | None = None) -> dict[str, Any]:
    """DeepSpeed's config of a run, as a plain dict; it needs no further change.

    Args:
        device_type: "cuda" or "cpu", where the ranks run; None takes run.device, and its auto is taken for a CPU.

    What DeepSpeed 0.19 makes of it: bf16 with ZeRO 1 runs its BF16_Optimizer, bf16 and fp16 with ZeRO 2 or 3 (fp16 with
    ZeRO 1 too) the ZeRO optimizers. All of them keep fp32 master weights.
    """
    stage = config.parallel.zero_stage
    template = json.loads(resources.files("ds_configs").joinpath(f"zero{stage}.json").read_text(encoding="utf-8"))
    filled: dict[str, Any] = _fill(template, _owned(config, device_type or config.run.device))
    return filled


def _owned(config: RunConfig, device_type: str) -> dict[str, Any]:
    """Dotted DeepSpeed key -> the value that follows from the run config."""
    return {
        "train_batch_size": config.batch.global_batch_size,
        "train_micro_batch_size_per_gpu": config.batch.micro_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "gradient_clipping": config.optimizer.grad_clip,
        "bf16": {"enabled": config.precision.dtype == "bf16"},
        "fp16": {
            "enabled": config.precision.dtype == "fp16",
            "loss_scale": 0,  # dynamic
            "initial_scale_power": config.precision.initial_loss_scale_power,
        },
        "data_types.grad_accum_dtype": config.grad_accum_dtype,
        "communication_data_type": config.grad_accum_dtype,
        "steps_per_print": NEVER,
        "zero_optimization.overlap_comm": device_type == "cuda",
    }


def _fill(template: Any, owned: dict[str, Any], path: str = "") -> Any:
    """`template` with each "auto" replaced by the value that `owned` has for its dotted path."""
    if isinstance(template, dict):
        return {key: _fill(value, owned, f"{path}.{key}".lstrip(".")) for key, value in template.items()}
    return owned[path] if template == "auto" else template
