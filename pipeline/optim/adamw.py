"""AdamW over the parameters of one rank, with weight decay where the parameter table says so."""

import torch

from pipeline.config.schema import OptimizerConfig
from pipeline.models.parameters import ParameterTable


def build(module: torch.nn.Module, table: ParameterTable, settings: OptimizerConfig) -> torch.optim.AdamW:
    """The optimizer of `module`, one rank's part of the model: a group with weight decay and one without.

    A stage that has no parameter of one kind has one group.
    """
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in module.named_parameters():
        groups[table.row_of(name).decay].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": settings.weight_decay if decays else 0.0}
            for decays, parameters in groups.items()
            if parameters
        ],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )
