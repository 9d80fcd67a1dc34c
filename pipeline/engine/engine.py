"""DeepSpeed behind one interface: one training step, one evaluation, with pipeline stages or without."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from megatron.core import parallel_state
from megatron.core.tensor_parallel import get_cuda_rng_tracker

from pipeline.checkpoint.files import DurableFiles
from pipeline.engine.gradients import GradientGuard, GuardedLoss
from pipeline.errors import DataError
from pipeline.models.documents import Carried
from pipeline.models.family import Family
from pipeline.objectives.samples import IGNORED, Batch

Batches = Iterator[Batch]
EVALUATED_AT_ONCE = 32  # micro-batches, which are held in memory together


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one optimizer step did.

    Attributes:
        loss: mean over the global batch, nats per token.
        grad_norm: global 2-norm before clipping; None where DeepSpeed does not compute it.
        skipped: the update was left out, since the loss or a gradient is not finite.
        diverged: that is so, and not only because the loss scale of fp16 is too high still.
        loss_scale: what the loss was multiplied by; None where it is not scaled.
        loss_parts: of a loss that is a sum, the mean of each part, by its name.
    """

    loss: float
    grad_norm: float | None
    skipped: bool
    diverged: bool
    loss_scale: float | None = None
    loss_parts: Mapping[str, float] = field(default_factory=dict)


class Engine(ABC):
    """One rank's part of the model with its optimizer, on its device."""

    def __init__(
        self, deepspeed_engine: DeepSpeedEngine, family: Family, loss: GuardedLoss, device: torch.device
    ) -> None:
        self.deepspeed = deepspeed_engine
        self.family = family
        self.guarded_loss = loss
        self.loss = loss.loss
        self.device = device
        self.gradients = GradientGuard(deepspeed_engine)
        self.files = DurableFiles()
        deepspeed_engine.checkpoint_engine = self.files
        # A checkpoint is data: DeepSpeed would leave scripts of its own beside it.
        deepspeed_engine._copy_recovery_script = lambda *_: None

    def set_global_batch_size(self, num_sequences: int) -> None:
        """Have the next steps take so many sequences, of all data-parallel ranks together."""
        engine = self.deepspeed
        if num_sequences == engine.train_batch_size():
            return
        engine.set_train_batch_size(num_sequences)
        # DeepSpeed finds the end of a step by the remainder of all micro-batches since the start, which were another
        # number a step; and its ZeRO 1 and 2 keep the number that they were made with.
        engine.micro_steps = 0
        if hasattr(engine.optimizer, "gradient_accumulation_steps"):
            engine.optimizer.gradient_accumulation_steps = engine.gradient_accumulation_steps()

    def train_step(self, batches: Batches, *, learning_rate: float) -> StepResult:
        """One optimizer step over the next `gradient_accumulation_steps` micro-batches of `batches`.

        Raises:
            DataError: nothing in them is to be predicted.
        """
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        step = list(islice(batches, self.deepspeed.gradient_accumulation_steps()))
        if not self._count_labels(step):
            raise DataError(
                "no token of a whole batch is to be predicted: documents of one token with "
                "data.attend_within_documents=true have no next one. Look at it with `pretrain data preview`."
            )
        self._last_step, self._streams_before = step, _random_streams()
        loss_scale = float(self.deepspeed.optimizer.loss_scale) if self.deepspeed.fp16_enabled() else None
        skipped_before, may_overflow = self.deepspeed.skipped_steps, self.gradients.start_step()
        self.loss.parts.clear()
        loss = self._forward_backward_update(step)
        found = self.deepspeed.get_global_grad_norm()
        norm = None if found is None else float(found)
        skipped = self.deepspeed.skipped_steps > skipped_before
        overflowed = skipped or not math.isfinite(norm or 0.0)  # so is a loss that is not finite: see GuardedLoss
        return StepResult(
            loss=loss,
            grad_norm=norm,
            skipped=skipped,
            diverged=overflowed and not (may_overflow and self.on_every_rank(math.isfinite(loss))),
            loss_scale=loss_scale,
            loss_parts=self._mean_loss_parts(len(step)),
        )

    def _mean_loss_parts(self, num_micro_batches: int) -> dict[str, float]:
        """The mean of each part of the last step's loss, which the last stage knows, on every rank."""
        names, parts = self.family.loss_parts, self.loss.parts
        if not names:
            return {}
        known = [parts[name] if parts else torch.zeros((), device=self.device) for name in names]
        sums = torch.stack([*known, torch.tensor(float(bool(parts)), device=self.device)])
        torch.distributed.all_reduce(sums)
        *totals, num_ranks = sums.tolist()
        return {
            name: total / (num_ranks * num_micro_batches)
            for name, total in zip(names, totals, strict=True)
            if num_ranks
        }

    def on_every_rank(self, holds: bool) -> bool:
        """Whether something holds on all ranks; every rank calls this."""
        agreed = torch.tensor(int(holds), device=self.device)
        torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MIN)
        return bool(agreed)

    @torch.no_grad()
    def repeat_forward(self) -> None:
        """Run the last step's forward pass again, with the same weights, if it was skipped, and the same dropout."""
        now = _random_streams()
        _set_random_streams(self._streams_before)
        self._forward(self._last_step)
        _set_random_streams(now)

    def evaluate(self, batches: Batches, *, num_micro_batches: int) -> float | None:
        """The mean loss over `num_micro_batches` of each data-parallel rank, nats per label; nothing is learned.

        Returns:
            None where there are no labels.
        """
        total, num_labels = 0.0, 0
        for start in range(0, num_micro_batches, EVALUATED_AT_ONCE):
            part = list(islice(batches, min(EVALUATED_AT_ONCE, num_micro_batches - start)))
            if found := self._count_labels(part):
                total += self._evaluate(part) * found
                num_labels += found
        return total / num_labels if num_labels else None

    @abstractmethod
    def _forward_backward_update(self, step: Sequence[Batch]) -> float:
        """The mean loss of the micro-batches of one step."""

    @abstractmethod
    def _forward(self, step: Sequence[Batch]) -> None:
        """The forward pass of one step, in training's mode."""

    @abstractmethod
    def _evaluate(self, part: Sequence[Batch]) -> float:
        """The mean loss of some micro-batches."""

    def _count_labels(self, batches: Sequence[Batch]) -> int:
        """The labels of these micro-batches of all data-parallel ranks, over which the loss is to be the mean.

        Means of micro-batches would weigh a label by how many others there are beside it.
        """
        own = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
        count = torch.tensor(own, device=self.device)
        group = parallel_state.get_data_parallel_group()
        torch.distributed.all_reduce(count, group=group)
        self.loss.num_labels = int(count) / (len(batches) * torch.distributed.get_world_size(group))
        return int(count)

    def _on_device(self, batches: Sequence[Batch]) -> Iterator[tuple[Carried, Carried]]:
        """The inputs and the labels of each batch, int64."""
        for batch in batches:
            yield self._tensors(batch, self.family.inputs), self._tensors(batch, self.family.labels)

    def _tensors(self, batch: Batch, names: Sequence[str]) -> Carried:
        """Those of `names` that the batch has, in this order."""
        found = tuple(self._tensor(batch[name]) for name in names if name in batch)
        return found[0] if len(found) == 1 else found

    def _tensor(self, values: npt.NDArray[np.int32]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device).long()  # widened where it is fast


class PipelineEngine(Engine):
    """With pipeline stages: DeepSpeed's 1F1B schedule."""

    def _forward_backward_update(self, step: Sequence[Batch]) -> float:
        return float(self.deepspeed.train_batch(self._on_device(step)))

    def _forward(self, step: Sequence[Batch]) -> None:
        # As DeepSpeed's `eval_batch`, which would switch dropout off.
        self.deepspeed.module.train()
        self.deepspeed._compute_loss = True
        self.deepspeed.set_dataiterator(self._on_device(step))
        self.deepspeed._exec_schedule(self.deepspeed._inference_schedule(len(step)))

    def _evaluate(self, part: Sequence[Batch]) -> float:
        return float(self.deepspeed.eval_batch(self._on_device(part), num_micro_batches=len(part)))


class UnstagedEngine(Engine):
    """Without pipeline stages: every ZeRO stage."""

    def _forward_backward_update(self, step: Sequence[Batch]) -> float:
        self.deepspeed.train()
        total = torch.zeros((), device=self.device)
        for inputs, labels in self._on_device(step):
            loss = self.guarded_loss(self.deepspeed(inputs), labels)
            self.deepspeed.backward(loss)
            self.deepspeed.step()
            total += loss.detach()
        return self._mean(total / len(step))

    def _forward(self, step: Sequence[Batch]) -> None:
        self.deepspeed.train()
        for inputs, labels in self._on_device(step):
            self.guarded_loss(self.deepspeed(inputs), labels)

    @torch.no_grad()
    def _evaluate(self, part: Sequence[Batch]) -> float:
        self.deepspeed.eval()
        losses = [self.guarded_loss(self.deepspeed(inputs), labels) for inputs, labels in self._on_device(part)]
        return self._mean(torch.stack(losses).mean())

    def _mean(self, value: torch.Tensor) -> float:
        group = self.deepspeed.mpu.get_data_parallel_group()
        torch.distributed.all_reduce(value, group=group)
        return float(value / torch.distributed.get_world_size(group))


def _random_streams() -> tuple[Any, ...]:
    """The state of those that dropout draws from."""
    device = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), device, get_cuda_rng_tracker().get_states()


def _set_random_streams(state: tuple[Any, ...]) -> None:
    host, device, model_parallel = state
    torch.set_rng_state(host)
    if device is not None:
        torch.cuda.set_rng_state(device)
    get_cuda_rng_tracker().set_states(model_parallel)
