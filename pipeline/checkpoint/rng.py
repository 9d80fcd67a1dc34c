"""The random state of one rank, as tensors and plain values."""

import random
from typing import Any

import numpy as np
import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker


def file_name(rank: int) -> str:
    return f"rng_{rank:05d}.pt"


def state() -> dict[str, Any]:
    """The state of every generator that this rank may draw from."""
    version, key, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [version, torch.from_numpy(np.asarray(key, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "model_parallel": get_cuda_rng_tracker().get_states(),
    }


def restore(saved: dict[str, Any]) -> None:
    """Go on where `state` was taken."""
    random.setstate(saved["python"])
    version, key, *rest = saved["numpy"]
    np.random.set_state((version, key.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(saved["cuda"])
    get_cuda_rng_tracker().set_states(saved["model_parallel"])
