"""The model families by name."""

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.config.architectures import Family as FamilyName
from pipeline.config.schema import ModelConfig
from pipeline.models.bert import BERT
from pipeline.models.execution import UNSPLIT, Execution
from pipeline.models.family import Family
from pipeline.models.gpt import GPT
from pipeline.models.parameters import ParameterTable
from pipeline.models.pipeline_layer import PipelineLayer
from pipeline.models.t5 import T5

FAMILIES: Mapping[FamilyName, Family] = MappingProxyType({"gpt": GPT, "bert": BERT, "t5": T5})


def family_of(model: ModelConfig) -> Family:
    """The family that `model` belongs to."""
    return FAMILIES[model.family]


def parameter_table(model: ModelConfig) -> ParameterTable:
    """Every parameter of `model`, in the order of its layers."""
    return family_of(model).parameter_table(model)


def pipeline_layers(model: ModelConfig, execution: Execution = UNSPLIT) -> list[PipelineLayer]:
    """`model` as a list of pipeline layers, not built yet."""
    return family_of(model).pipeline_layers(model, execution)
