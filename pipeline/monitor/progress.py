"""How fast a run goes, and the line that says so."""

import time

import psutil
import torch

from pipeline.engine.engine import StepResult
from pipeline.monitor.peak_flops import TERA


class Progress:
    """Times the steps of one start of a run, from its making on.

    Args:
        num_steps, num_tokens: of the whole run, earlier starts included.
        device_flops_per_token: what each device computes for a token of the run.
        peak_flops: the most that a device computes in a second; None where it is not known.
    """

    def __init__(
        self,
        *,
        num_steps: int,
        num_tokens: int,
        consumed_tokens: int,
        device_flops_per_token: float,
        peak_flops: float | None,
    ) -> None:
        self._num_steps = num_steps
        self._num_tokens = num_tokens
        self._device_flops_per_token = device_flops_per_token
        self._peak_flops = peak_flops
        self._first = self._shown = self._consumed = consumed_tokens
        self._started = self._last = time.perf_counter()
        self._unshown_seconds = 0.0

    def step_done(
        self, result: StepResult, *, lr: float, consumed_tokens: int, data_wait_seconds: float
    ) -> dict[str, float | None]:
        """The figures of a step that has just ended, named for `MetricsWriter`.

        Args:
            consumed_tokens: of all steps so far.
            data_wait_seconds: what of the step was spent waiting for data.
        """
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        tokens, self._consumed = consumed_tokens - self._consumed, consumed_tokens
        self._unshown_seconds += seconds
        return {
            "train/loss": result.loss,
            **{f"train/{name}": value for name, value in result.loss_parts.items()},
            "train/grad_norm": result.grad_norm,
            "train/lr": lr,
            "train/skipped": float(result.skipped),
            "train/loss_scale": result.loss_scale,
            "train/tokens": float(consumed_tokens),
            "speed/step_seconds": seconds,
            "speed/tokens_per_second": tokens / seconds,
            "speed/tflops_per_device": tokens / seconds * self._device_flops_per_token / TERA,
            "speed/mfu": self._utilization(tokens / seconds),
            "speed/data_wait_seconds": data_wait_seconds,
            "memory/host_bytes": float(psutil.Process().memory_info().rss),
            "memory/device_bytes": float(torch.cuda.max_memory_allocated()) if torch.cuda.is_initialized() else None,
        }

    def restart_clock(self) -> None:
        """Leave out of the next step what was done since the last one: evaluation, saving."""
        self._last = time.perf_counter()

    def line(self, step: int, figures: dict[str, float | None]) -> str:
        """One line for the terminal; its speed is that of all steps since the line before."""
        done, left = self._consumed - self._first, self._num_tokens - self._consumed
        time_left = _duration((time.perf_counter() - self._started) / max(done, 1) * left)
        norm, validation = figures["train/grad_norm"], figures.get("validation/loss")
        speed = (self._consumed - self._shown) / self._unshown_seconds
        utilization = self._utilization(speed)
        self._shown, self._unshown_seconds = self._consumed, 0.0
        return (
            f"step {step}/{self._num_steps}  loss {figures['train/loss']:.4f}"
            f"{'' if validation is None else f'  validation {validation:.4f}'}  lr {figures['train/lr']:.2e}"
            f"{'' if norm is None else f'  grad norm {norm:.3f}'}  {speed:,.0f} tokens/s"
            f"{'' if utilization is None else f'  MFU {utilization:.1%}'}  {time_left} left"
        )

    def _utilization(self, tokens_per_second: float) -> float | None:
        """The share of the devices' peak that the model's operations are (MFU)."""
        if self._peak_flops is None:
            return None
        return tokens_per_second * self._device_flops_per_token / self._peak_flops


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
