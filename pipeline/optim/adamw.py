"""AdamW over the parameters of one rank, with weight decay where the parameter table says so."""

import torch

from pipeline.config.schema import OptimizerConfig
from pipeline.models.parameters import ParameterTable
from pipeline.optim.groups import parameter_groups


def build(module: torch.nn.Module, table: ParameterTable, settings: OptimizerConfig) -> torch.optim.AdamW:
    """The optimizer of `module`, one rank's part of the model, in the groups of `parameter_groups`.

    It is torch's fused one, which is there for CUDA and for CPUs.
    """
    return torch.optim.AdamW(
        parameter_groups(module, table, weight_decay=settings.weight_decay),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )
