"""The config of a small encoder, for the tests of its model and of what it is in transformers."""

from typing import Any

from pipeline.config.schema import ModelConfig

VOCAB_SIZE = 390


def model_config(**shape: Any) -> ModelConfig:
    """A BERT of two layers that judges pairs, but for what `shape` says."""
    base = {
        "architecture": "bert",
        "vocab_size": VOCAB_SIZE,
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "ffn_hidden_size": 48,
        "seq_len": 24,
        "init_std": 0.15,
        "pair_head": True,
    }
    return ModelConfig(**(base | shape))
