"""Batch arithmetic, in sequences: global = micro x data parallel x accumulation, and a global batch size that grows."""

from dataclasses import dataclass


def accumulation_steps(*, global_batch_size: int, micro_batch_size: int, data_parallel_size: int) -> int:
    """Micro-batches that each model copy runs per optimizer step.

    The global batch size must be a multiple of micro x data parallel; `pipeline.config.rules` says so to the user.
    """
    return global_batch_size // (micro_batch_size * data_parallel_size)


@dataclass(frozen=True, kw_only=True)
class BatchRamp:
    """The global batch size over a run: from `start` in equal stretches of samples to `final`.

    With k = (final - start) / increment the stretches are `samples` / k long; step i of the ramp, from 0, begins at the
    first step of the run that finds i x `samples` / k or more samples used. All of it is whole-number arithmetic.

    Attributes:
        final: from `samples` on.
        start: of the first stretch; equal to `final` where nothing grows.
        increment: what each stretch adds; `final - start` must be a multiple of it.
        samples: of the run, over which the batch size grows; 0 where nothing does.

    Source: Smith et al., "Don't Decay the Learning Rate, Increase the Batch Size", 2018; the three numbers are those of
    Megatron-LM's --rampup-batch-size.
    """

    final: int
    start: int
    increment: int
    samples: int

    @property
    def num_increments(self) -> int:
        return (self.final - self.start) // self.increment

    def size_at(self, consumed_samples: int) -> int:
        """The sequences of the step that begins after `consumed_samples`."""
        if consumed_samples >= self.samples:
            return self.final
        return self.start + self.increment * (consumed_samples * self.num_increments // self.samples)

    def after(self, consumed_samples: int, num_steps: int) -> int:
        """The samples used after `num_steps` more steps, `consumed_samples` having been used before them."""
        position, steps_left = consumed_samples, num_steps
        while steps_left and position < self.samples:
            size = self.size_at(position)
            stretch = position * self.num_increments // self.samples
            end = -(-(stretch + 1) * self.samples // self.num_increments)  # the first sample of the next stretch
            steps = min(steps_left, -(-(end - position) // size))
            position, steps_left = position + steps * size, steps_left - steps
        return position + steps_left * self.final
