"""A model in pipeline stages: DeepSpeed's module and engine, where they fall short of what our models need."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
from deepspeed.runtime.pipe import schedule
from deepspeed.runtime.pipe.engine import PipelineEngine
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

from pipeline.models.pipeline_layer import PipelineLayer


class StagedModel(PipelineModule):
    """This rank's stage of a list of layers.

    Beyond DeepSpeed's: it is cut where `bounds` say, a layer that reads another one's weight may have parameters of its
    own, and a stage that only reads that weight holds nothing else of its owner.
    """

    def __init__(
        self,
        layers: Sequence[PipelineLayer],
        *,
        bounds: Sequence[int],
        topology: PipeModelDataParallelTopology,
        loss: Callable[..., torch.Tensor],
    ) -> None:
        self._bounds = list(bounds)
        specs = [_layer_spec(layers, index) for index in range(len(layers))]
        super().__init__(specs, topology=topology, loss_fn=loss)

    def _partition_layers(self, method: str) -> None:  # noqa: ARG002 (DeepSpeed's name for a rule of its own)
        self.parts = self._bounds
        stage = self._topo.get_coord(self.global_rank).pipe
        self._set_bounds(start=self.parts[stage], stop=self.parts[stage + 1])

    def _build(self) -> None:
        super()._build()
        for position, function in enumerate(self.forward_funcs):
            if isinstance(function, partial):
                [holder] = function.args
                reader = function.func()
                if next(reader.parameters(), None) is not None:
                    self.add_module(str(self._local_start + position), reader)
                    for parameter in reader.parameters():
                        parameter.ds_pipe_replicated = False
                self.forward_funcs[position] = _Reader(reader, holder)


class _Reader:
    """A layer that is called with the weight of another module, and saved with its own parameters alone."""

    def __init__(self, layer: torch.nn.Module, holder: torch.nn.Module) -> None:
        self._layer = layer
        self._holder = holder
        if next(layer.parameters(), None) is not None:  # DeepSpeed saves and loads what has these
            self.state_dict = layer.state_dict
            self.load_state_dict = layer.load_state_dict

    def __call__(self, inputs: Any) -> Any:
        return self._layer(inputs, self._holder.weight)


def _layer_spec(layers: Sequence[PipelineLayer], index: int) -> LayerSpec:
    layer = layers[index]
    if layer.weight_from is not None:
        holder = layers[layer.weight_from].weight_holder
        assert holder is not None
        # `_build` calls it to make what becomes the function.
        return TiedLayerSpec(
            str(layer.weight_from), holder.module, *holder.args, forward_fn=layer.build, **holder.kwargs
        )
    if any(other.weight_from == index for other in layers):
        return TiedLayerSpec(str(index), layer.module, *layer.args, **layer.kwargs)
    return LayerSpec(layer.module, *layer.args, **layer.kwargs)


def amend(engine: PipelineEngine) -> None:
    """Replace the instructions of DeepSpeed's schedule that do not serve models like ours."""
    engine._INSTRUCTION_MAP = {
        **engine._INSTRUCTION_MAP,
        schedule.BackwardPass: _backward_pass,
        schedule.ReduceTiedGrads: _reduce_tied_gradients,
    }
    # DeepSpeed's keeps one buffer for each place in a tuple, whatever dtype is received there: int64 for a gradient.
    engine._allocate_or_extend_buffers = lambda _, shape, dtype: torch.empty(shape, dtype=dtype, device=engine.device)


class _AllAtOnce(torch.autograd.Function):
    """A scalar whose backward pass gives each of several tensors its gradient, so that the graph is walked once."""

    @staticmethod
    def forward(ctx: Any, gradients: Sequence[torch.Tensor], *outputs: torch.Tensor) -> torch.Tensor:
        ctx.gradients = gradients
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        return None, *ctx.gradients


def _backward_pass(engine: PipelineEngine, buffer_id: int) -> None:
    """DeepSpeed walks the graph once for each tensor that was sent: an encoder twice, behind cross-attention."""
    outputs, gradients = engine.pipe_buffers["outputs"][buffer_id], engine.grad_layer
    sends_several = not engine.is_last_stage() and isinstance(outputs, tuple)
    if sends_several:
        sent = [tensor for tensor in outputs if tensor.is_floating_point()]
        engine.pipe_buffers["outputs"][buffer_id] = _AllAtOnce.apply(list(gradients), *sent)
        engine.grad_layer = torch.ones((), dtype=sent[0].dtype, device=sent[0].device)
    engine._exec_backward_pass(buffer_id)
    if sends_several:
        engine.grad_layer = gradients  # the buffers that the next ones are received in
    _give_unused_inputs_a_gradient(engine.pipe_buffers["inputs"][buffer_id])


def _give_unused_inputs_a_gradient(inputs: Any) -> None:
    """The stage before waits for one of every tensor that it has sent."""
    for tensor in inputs if isinstance(inputs, tuple) else ():
        if tensor.is_floating_point() and tensor.requires_grad and tensor.grad is None:
            tensor.grad = torch.zeros_like(tensor)


def _reduce_tied_gradients(engine: PipelineEngine) -> None:
    """DeepSpeed looks for them in one place, and leaves the sum out where they are in another, as with fp16."""
    for weight, group in engine.module.get_tied_weights_and_groups():
        kept_in = "_hp_grad" if engine.using_bf16_optimizer else "grad"
        if getattr(weight, kept_in) is None:
            kept_in = "grad_accum"
        torch.distributed.all_reduce(getattr(weight, kept_in), group=group)
