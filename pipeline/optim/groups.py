"""The parameters of one rank in groups: those that weight decay applies to, and those it spares."""

from typing import Any

import torch

from pipeline.models.parameters import ParameterTable


def parameter_groups(module: torch.nn.Module, table: ParameterTable, *, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters of `module`, one rank's part of the model: a group with weight decay and one without.

    The table says which is which. A stage that has no parameter of one kind has one group.
    """
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in module.named_parameters():
        groups[table.row_of(name).decay].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0}
        for decays, parameters in groups.items()
        if parameters
    ]
