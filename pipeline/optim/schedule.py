"""The learning rate as a function of the step."""

import math

from pipeline.config.schema import RunConfig


def learning_rate(config: RunConfig, step: int) -> float:
    """The learning rate of step `step`, which counts from 1: linear warm-up to the peak, then the decay of `schedule`.

    A function of its arguments alone: a resumed run has the rate that an uninterrupted one has. With the decays that
    end, steps after `decay_steps` are at `min_lr`; the last one before has a little more, so that it still learns where
    that is 0. An inverse square root never ends; it is not taken below `min_lr`.

    Source: inverse square root: Vaswani et al., "Attention Is All You Need", 2017. Warm-up, stable, decay: Hu et al.,
    "MiniCPM", 2024; its shape 1 - sqrt: Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed
    Training Durations", 2024.
    """
    peak, floor = config.optimizer.lr, config.schedule.min_lr
    warmup, last = config.schedule.warmup_steps, config.decay_steps
    if step <= warmup:
        return peak * step / warmup
    match config.schedule.decay:
        case "constant":
            return peak
        case "inverse_sqrt":
            return max(floor, peak * math.sqrt(max(warmup, 1) / step))
        case "wsd":
            start = last - (config.schedule.cooldown_steps or 0)
            shape: str = config.schedule.cooldown
        case decay:
            start, shape = warmup, decay
    done = min(max((step - 1 - start) / (last - start), 0.0), 1.0) if last > start else 1.0
    return floor + (peak - floor) * _remaining(shape, done)


def _remaining(shape: str, done: float) -> float:
    """What is left of a decay from 1 to 0 of which the part `done` is over."""
    match shape:
        case "linear":
            return 1 - done
        case "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        case _:
            return 1 - math.sqrt(done)
