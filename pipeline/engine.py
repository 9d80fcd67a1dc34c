"""DeepSpeed behind one interface: one training step, one evaluation, with pipeline stages or without."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import deepspeed
import numpy as np
import numpy.typing as npt
import torch
from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.pipe.topology import PipelineParallelGrid, PipeModelDataParallelTopology
from deepspeed.runtime.utils import clip_grad_norm_
from megatron.core import parallel_state

from pipeline.checkpoint.files import DurableFiles
from pipeline.config.deepspeed import deepspeed_config
from pipeline.config.schema import RunConfig
from pipeline.errors import DataError
from pipeline.models import gpt
from pipeline.models.documents import Carried, Documents
from pipeline.models.layers import NextTokenLoss
from pipeline.models.parameters import ParameterTable, initialize
from pipeline.models.pipeline_layer import LayerStack, PipelineLayer
from pipeline.objectives.samples import IGNORED, Batch
from pipeline.optim import adamw
from pipeline.topology import Topology

Batches = Iterator[Batch]
EVALUATED_AT_ONCE = 32  # micro-batches, which are held in memory together
# What the model's first layer takes, of what a batch may hold, in this order.
INPUTS = ("input_ids", "document_ids", "position_ids")


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one optimizer step did.

    Attributes:
        loss: mean over the global batch, nats per token.
        grad_norm: global 2-norm before clipping; None where DeepSpeed does not compute it.
        skipped: the update was left out because the gradients overflowed (fp16).
    """

    loss: float
    grad_norm: float | None
    skipped: bool


class Engine(ABC):
    """One rank's part of the model with its optimizer, on its device."""

    def __init__(self, deepspeed_engine: DeepSpeedEngine, loss: NextTokenLoss, device: torch.device) -> None:
        self.deepspeed = deepspeed_engine
        self.loss = loss
        self.device = device
        self.files = DurableFiles()
        deepspeed_engine.checkpoint_engine = self.files
        # A checkpoint is data: DeepSpeed would leave scripts of its own beside it.
        deepspeed_engine._copy_recovery_script = lambda *_: None

    def train_step(self, batches: Batches, *, learning_rate: float) -> StepResult:
        """One optimizer step over the next `gradient_accumulation_steps` micro-batches of `batches`.

        Raises:
            DataError: nothing in them is to be predicted.
        """
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        skipped_before = self.deepspeed.skipped_steps
        step = list(islice(batches, self.deepspeed.gradient_accumulation_steps()))
        if not self._count_labels(step):
            raise DataError(
                "no token of a whole batch is to be predicted: documents of one token with "
                "data.attend_within_documents=true have no next one. Look at it with `pretrain data preview`."
            )
        loss = self._forward_backward_update(step)
        norm = self.deepspeed.get_global_grad_norm()
        return StepResult(
            loss=loss,
            grad_norm=None if norm is None else float(norm),
            skipped=self.deepspeed.skipped_steps > skipped_before,
        )

    def evaluate(self, batches: Batches, *, num_micro_batches: int) -> float:
        """The mean loss over `num_micro_batches` of each data-parallel rank, nats per label; nothing is learned."""
        total, num_labels = 0.0, 0
        for start in range(0, num_micro_batches, EVALUATED_AT_ONCE):
            part = list(islice(batches, min(EVALUATED_AT_ONCE, num_micro_batches - start)))
            if found := self._count_labels(part):
                total += self._evaluate(part) * found
                num_labels += found
        return total / num_labels if num_labels else float("nan")

    @abstractmethod
    def _forward_backward_update(self, step: Sequence[Batch]) -> float:
        """The mean loss of the micro-batches of one step."""

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

    def _on_device(self, batches: Sequence[Batch]) -> Iterator[tuple[Carried, torch.Tensor]]:
        """The inputs and the labels of each batch, int64 [B, S]."""
        for batch in batches:
            inputs = tuple(self._tensor(batch[name]) for name in INPUTS if name in batch)
            yield inputs[0] if len(inputs) == 1 else inputs, self._tensor(batch["labels"])

    def _tensor(self, values: npt.NDArray[np.int32]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device).long()  # widened where it is fast


class PipelineEngine(Engine):
    """With pipeline stages: DeepSpeed's 1F1B schedule."""

    def _forward_backward_update(self, step: Sequence[Batch]) -> float:
        return float(self.deepspeed.train_batch(self._on_device(step)))

    def _evaluate(self, part: Sequence[Batch]) -> float:
        return float(self.deepspeed.eval_batch(self._on_device(part), num_micro_batches=len(part)))


class UnstagedEngine(Engine):
    """Without pipeline stages: every ZeRO stage."""

    def _forward_backward_update(self, step: Sequence[Batch]) -> float:
        self.deepspeed.train()
        total = torch.zeros((), device=self.device)
        for inputs, labels in self._on_device(step):
            loss = self.loss(self.deepspeed(inputs), labels)
            self.deepspeed.backward(loss)
            self.deepspeed.step()
            total += loss.detach()
        return self._mean(total / len(step))

    @torch.no_grad()
    def _evaluate(self, part: Sequence[Batch]) -> float:
        self.deepspeed.eval()
        losses = [self.loss(self.deepspeed(inputs), labels) for inputs, labels in self._on_device(part)]
        return self._mean(torch.stack(losses).mean())

    def _mean(self, value: torch.Tensor) -> float:
        group = self.deepspeed.mpu.get_data_parallel_group()
        torch.distributed.all_reduce(value, group=group)
        return float(value / torch.distributed.get_world_size(group))


def build(config: RunConfig, table: ParameterTable, topology: Topology, *, rank: int, device: torch.device) -> Engine:
    """This rank's engine for the model that `table` describes, with the initial weights of `run.seed`.

    The process groups must be up: `pipeline.distributed.start`.
    """
    _adopt_process_groups()
    layers = gpt.pipeline_layers(
        config.model,
        tensor_parallel_size=topology.tensor,
        sequence_parallel=config.parallel.sequence_parallel,
        documents=Documents(
            attend_within=config.data.attend_within_documents, reset_positions=config.data.reset_positions
        ),
    )
    grid_topology = PipeModelDataParallelTopology(
        num_pp=topology.pipeline, num_mp=topology.tensor, num_dp=topology.data
    )
    staged, loss = topology.pipeline > 1, NextTokenLoss()
    module = _pipeline_module(layers, grid_topology, loss) if staged else LayerStack(layers)
    initialize(
        module,
        table,
        seed=config.run.seed,
        tensor_rank=topology.coordinate(rank).tensor,
        tensor_parallel_size=topology.tensor,
    )
    deepspeed_engine, *_ = deepspeed.initialize(
        model=module,
        optimizer=adamw.build(module, table, config.optimizer),
        config=deepspeed_config(config, device_type=device.type),
        mpu=None if staged else PipelineParallelGrid(topology=grid_topology),
    )
    deepspeed_engine.clip_fp32_gradients = lambda: _clip_and_remember(deepspeed_engine)
    return (PipelineEngine if staged else UnstagedEngine)(deepspeed_engine, loss, device)


def _adopt_process_groups() -> None:
    # On CPUs DeepSpeed would compile an all-reduce of its own at first use: half a minute, and a rank that is killed
    # while it compiles leaves a lock on which every later run hangs. Gloo's serves.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_init_required=False)


def _clip_and_remember(engine: DeepSpeedEngine) -> None:
    """DeepSpeed's clipping for fp32 without ZeRO, which forgets the norm that it found."""
    engine._global_grad_norm = clip_grad_norm_(
        parameters=engine.module.parameters(), max_norm=engine.gradient_clipping(), mpu=engine.mpu
    )


def _pipeline_module(
    layers: Sequence[PipelineLayer], topology: PipeModelDataParallelTopology, loss: NextTokenLoss
) -> PipelineModule:
    """DeepSpeed's form of the list of layers, cut so that each stage has as many of the repeated blocks."""
    [block] = {layer.module.__name__ for layer in layers if layer.is_block}
    return PipelineModule(
        [_layer_spec(layers, index) for index in range(len(layers))],
        topology=topology,
        loss_fn=loss,
        partition_method=f"type:{block}",
    )


def _layer_spec(layers: Sequence[PipelineLayer], index: int) -> LayerSpec:
    layer = layers[index]
    if layer.weight_from is not None:
        reader, source = layer.build(), layers[layer.weight_from]
        return TiedLayerSpec(
            str(layer.weight_from),
            source.module,
            *source.args,
            forward_fn=lambda owner, inputs: reader(inputs, owner.weight),
            **source.kwargs,
        )
    if any(other.weight_from == index for other in layers):
        return TiedLayerSpec(str(index), layer.module, *layer.args, **layer.kwargs)
    return LayerSpec(layer.module, *layer.args, **layer.kwargs)
