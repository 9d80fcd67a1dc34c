"""What megatron-core and torch need to train on a CPU: three stand-ins for parts that assume CUDA."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from megatron.core.tensor_parallel import random as megatron_random

_library: torch.library.Library | None = None


class CpuRngStatesTracker:
    """Named random states over the CPU generator, with the methods of megatron-core's `CudaRNGStatesTracker`."""

    def __init__(self) -> None:
        self._states: dict[str, torch.Tensor] = {}

    def is_initialized(self) -> bool:
        return bool(self._states)

    def reset(self) -> None:
        self._states = {}

    def get_states(self) -> dict[str, torch.Tensor]:
        return dict(self._states)

    def set_states(self, states: dict[str, torch.Tensor]) -> None:
        self._states = dict(states)

    def add(self, name: str, seed: int) -> None:
        """Start the stream `name` at `seed`."""
        if name in self._states:
            raise ValueError(f"random state {name} exists already")
        self._states[name] = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def fork(self, name: str = "model-parallel-rng") -> Iterator[None]:
        """Draw from the stream `name` inside the block, and from the default stream again after it."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self._states[name])
        try:
            yield
        finally:
            self._states[name] = torch.get_rng_state()
            torch.set_rng_state(outside)


def prepare() -> None:
    """Make megatron-core's layers run on the CPU of this process. Calling it again changes nothing."""
    torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment, return-value]
    if not isinstance(megatron_random._CUDA_RNG_STATE_TRACKER, CpuRngStatesTracker):
        megatron_random._CUDA_RNG_STATE_TRACKER = CpuRngStatesTracker()
        megatron_random._CUDA_RNG_STATE_TRACKER_INITIALIZED = True
    if not _has_half_instructions():
        _multiply_halves_in_fp32()


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The dtype in which products of matrices like `tensor` are computed: fp32 on CPUs that are slow with its own.

    Without instructions for 16 bits torch falls back to plain loops: measured 10 times slower than fp32 for a product
    forward, 37 times with its backward, 12 times for the backward of attention. Instructions for 16 bits sum in fp32
    and round once at the end, and so does a product in fp32 that is rounded.
    """
    is_half = tensor.dtype in (torch.bfloat16, torch.float16)
    return torch.float32 if is_half and tensor.device.type == "cpu" and not _has_half_instructions() else tensor.dtype


@cache
def _has_half_instructions() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _multiply_halves_in_fp32() -> None:
    """Have torch multiply matrices in `product_dtype`."""
    global _library
    if _library is not None:
        return

    def mm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        dtype = product_dtype(left)
        # The `out` overload is another kernel, so this does not call itself.
        product = left.new_empty((left.shape[0], right.shape[1]), dtype=dtype)
        torch.mm(left.to(dtype), right.to(dtype), out=product)
        return product.to(left.dtype)

    _library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch remarks that a kernel is replaced, which is the point
        _library.impl("mm", mm, "CPU")
