"""A small run config as plain sections, for the tests of the config."""

import copy
from collections.abc import Mapping
from typing import Any

BASE: Mapping[str, dict[str, Any]] = {
    "run": {"dir": "runs/small", "steps": 20},
    "model": {
        "vocab_size": 128,
        "num_layers": 4,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "ffn_hidden_size": 128,
        "seq_len": 32,
    },
    "data": {"train": "data/train"},
    "batch": {"micro_batch_size": 2, "global_batch_size": 8},
    "optimizer": {"lr": 1e-3},
}


def sections(changes: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """A copy of `BASE` with dotted keys replaced."""
    made = copy.deepcopy(dict(BASE))
    for key, value in (changes or {}).items():
        section, name = key.split(".")
        made.setdefault(section, {})[name] = value
    return made
