"""The learning rate as a function of the step."""

import math

from pipeline.config.schema import RunConfig


def learning_rate(config: RunConfig, step: int) -> float:
    """The learning rate of step `step`, which counts from 1: linear warm-up to the peak, then decay to `min_lr`.

    A function of its arguments alone: a resumed run has the rate that an uninterrupted one has. Steps after
    `decay_steps` are at `min_lr`; the last one before has a little more, so that it still learns where that is 0.
    """
    peak, floor = config.optimizer.lr, config.schedule.min_lr
    warmup, last = config.schedule.warmup_steps, config.decay_steps
    if step <= warmup:
        return peak * step / warmup
    if config.schedule.decay == "constant":
        return peak
    progress = min((step - 1 - warmup) / (last - warmup), 1.0) if last > warmup else 1.0
    remaining = 1 - progress if config.schedule.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return floor + (peak - floor) * remaining
