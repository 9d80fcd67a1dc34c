"""DeepSpeed behind one interface: one training step, one evaluation, with pipeline stages or without."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import deepspeed
import torch
from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.pipe.topology import PipelineParallelGrid, PipeModelDataParallelTopology
from deepspeed.runtime.utils import clip_grad_norm_

from pipeline.checkpoint.files import DurableFiles
from pipeline.config.deepspeed import deepspeed_config
from pipeline.config.schema import RunConfig
from pipeline.models import gpt
from pipeline.models.layers import next_token_loss
from pipeline.models.parameters import ParameterTable, initialize
from pipeline.models.pipeline_layer import LayerStack, PipelineLayer
from pipeline.optim import adamw
from pipeline.topology import Topology

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


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

    def __init__(self, deepspeed_engine: DeepSpeedEngine, device: torch.device) -> None:
        self.deepspeed = deepspeed_engine
        self.device = device
        self.files = DurableFiles()
        deepspeed_engine.checkpoint_engine = self.files
        # A checkpoint is data: DeepSpeed would leave scripts of its own beside it.
        deepspeed_engine._copy_recovery_script = lambda *_: None

    def train_step(self, batches: Batches, *, learning_rate: float) -> StepResult:
        """One optimizer step over the next `gradient_accumulation_steps` micro-batches of `batches`."""
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        skipped_before = self.deepspeed.skipped_steps
        loss = self._forward_backward_update(batches)
        norm = self.deepspeed.get_global_grad_norm()
        return StepResult(
            loss=loss,
            grad_norm=None if norm is None else float(norm),
            skipped=self.deepspeed.skipped_steps > skipped_before,
        )

    @abstractmethod
    def evaluate(self, batches: Batches, *, num_micro_batches: int) -> float:
        """The mean loss over `num_micro_batches` of each data-parallel rank, nats per token; nothing is learned."""

    @abstractmethod
    def _forward_backward_update(self, batches: Batches) -> float: ...

    def _on_device(self, batches: Batches) -> Batches:
        return ((inputs.to(self.device), labels.to(self.device)) for inputs, labels in batches)


class PipelineEngine(Engine):
    """With pipeline stages: DeepSpeed's 1F1B schedule."""

    def _forward_backward_update(self, batches: Batches) -> float:
        return float(self.deepspeed.train_batch(self._on_device(batches)))

    def evaluate(self, batches: Batches, *, num_micro_batches: int) -> float:
        return float(self.deepspeed.eval_batch(self._on_device(batches), num_micro_batches=num_micro_batches))


class UnstagedEngine(Engine):
    """Without pipeline stages: every ZeRO stage."""

    def _forward_backward_update(self, batches: Batches) -> float:
        self.deepspeed.train()
        steps = self.deepspeed.gradient_accumulation_steps()
        total = torch.zeros((), device=self.device)
        on_device = self._on_device(batches)
        for _ in range(steps):
            inputs, labels = next(on_device)
            loss = next_token_loss(self.deepspeed(inputs), labels)
            self.deepspeed.backward(loss)
            self.deepspeed.step()
            total += loss.detach()
        return self._mean(total / steps)

    @torch.no_grad()
    def evaluate(self, batches: Batches, *, num_micro_batches: int) -> float:
        self.deepspeed.eval()
        on_device = islice(self._on_device(batches), num_micro_batches)
        losses = [next_token_loss(self.deepspeed(inputs), labels) for inputs, labels in on_device]
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
    )
    grid_topology = PipeModelDataParallelTopology(
        num_pp=topology.pipeline, num_mp=topology.tensor, num_dp=topology.data
    )
    staged = topology.pipeline > 1
    module = _pipeline_module(layers, grid_topology) if staged else LayerStack(layers)
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
    return (PipelineEngine if staged else UnstagedEngine)(deepspeed_engine, device)


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


def _pipeline_module(layers: Sequence[PipelineLayer], topology: PipeModelDataParallelTopology) -> PipelineModule:
    """DeepSpeed's form of the list of layers, cut so that each stage has as many of the repeated blocks."""
    [block] = {layer.module.__name__ for layer in layers if layer.is_block}
    return PipelineModule(
        [_layer_spec(layers, index) for index in range(len(layers))],
        topology=topology,
        loss_fn=next_token_loss,
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
