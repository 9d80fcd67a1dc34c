"""DeepSpeed's engine of one rank, with the optimizer that the run asks for."""

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.pipe.topology import PipelineParallelGrid

from pipeline import log
from pipeline.config.deepspeed import deepspeed_config
from pipeline.config.deepspeed_rules import optimizer_refusal
from pipeline.config.schema import RunConfig
from pipeline.errors import ConfigError, UserError
from pipeline.models.parameters import ParameterTable
from pipeline.optim import adamw
from pipeline.optim.groups import parameter_groups


def initialize(
    module: torch.nn.Module,
    table: ParameterTable,
    config: RunConfig,
    *,
    device: torch.device,
    grid: PipelineParallelGrid | None,
) -> DeepSpeedEngine:
    """The engine of `module`, one rank's part of the model.

    Args:
        grid: which ranks share what; None for a model in stages, which knows.

    Raises:
        ConfigError: the optimizer that DeepSpeed's JSON names cannot run here, or DeepSpeed refuses the JSON.
    """
    settings = deepspeed_config(config, device_type=device.type)
    name = f"parallel.deepspeed={config.parallel.deepspeed}"
    if refusal := optimizer_refusal(config, settings, device.type):
        raise ConfigError(f"{name}: {refusal}")
    if config.precision.dtype == "fp16" and device.type == "cpu":
        # DeepSpeed wants instructions for fp16. `pipeline.cpu` computes halves without, as those would.
        get_accelerator().is_fp16_supported = lambda: True
    ours = config.optimizer.name == "adamw"
    groups = parameter_groups(module, table, weight_decay=config.optimizer.weight_decay)
    try:
        engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=adamw.build(groups, config.optimizer) if ours else None,
            model_parameters=None if ours else groups,
            config=settings,
            mpu=grid,
        )
    except UserError:
        raise
    except Exception as error:
        if config.parallel.deepspeed is None:
            raise
        log.get().debug("DeepSpeed has refused its JSON", exc_info=error)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{name} is refused by DeepSpeed: {reason.rstrip('.')}. Change it, or leave it out."
        ) from error
    return engine
