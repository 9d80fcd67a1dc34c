"""AdamW over the parameters of one rank."""

from typing import Any

import torch

from pipeline.config.schema import OptimizerConfig


def build(groups: list[dict[str, Any]], settings: OptimizerConfig) -> torch.optim.AdamW:
    """The optimizer of `groups`, which `pipeline.optim.groups` has made.

    It is torch's fused one, which is there for CUDA and for CPUs.
    """
    return torch.optim.AdamW(
        groups,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )
