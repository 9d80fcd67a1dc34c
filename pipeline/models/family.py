"""What the engine, checkpoints and exports ask of a model family."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config.schema import ModelConfig
from pipeline.models.execution import Execution
from pipeline.models.losses import TokenLoss
from pipeline.models.parameters import ParameterTable
from pipeline.models.pipeline_layer import PipelineLayer


@dataclass(frozen=True, kw_only=True)
class Family:
    """One shape of Transformer.

    Attributes:
        parameter_table: every parameter of a model.
        pipeline_layers: the model as a list of layers, not built yet.
        inputs: what the first layer takes, of what a batch may hold, in this order.
        labels: what the loss takes, likewise.
        make_loss: the loss of one micro-batch, from the last layer's output and the labels.
        loss_parts: of a loss that is a sum, the names of its parts.
    """

    parameter_table: Callable[[ModelConfig], ParameterTable]
    pipeline_layers: Callable[[ModelConfig, Execution], list[PipelineLayer]]
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    make_loss: Callable[[], TokenLoss]
    loss_parts: tuple[str, ...] = ()
