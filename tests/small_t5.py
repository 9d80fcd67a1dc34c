"""The config of a small encoder-decoder, for the tests of its model and of what it is in transformers."""

from collections.abc import Mapping
from typing import Any

from pipeline.config.schema import ModelConfig

VOCAB_SIZE = 390
ORIGINAL: Mapping[str, Any] = {"gated_mlp": False, "activation": "relu", "tie_embeddings": True}


def model_config(**shape: Any) -> ModelConfig:
    """A T5 1.1 of two layers each, but for what `shape` says."""
    base = {
        "architecture": "t5",
        "vocab_size": VOCAB_SIZE,
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "ffn_hidden_size": 48,
        "seq_len": 24,
    }
    return ModelConfig(**(base | shape))
