"""What transformers calls the activations."""

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.config.architectures import Activation

ACTIVATION_NAMES: Mapping[Activation, str] = MappingProxyType(
    {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
)
