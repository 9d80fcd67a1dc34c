"""How fast a run goes, and the line that says so."""

import time

import psutil
import torch

from pipeline.engine import StepResult


class Progress:
    """Times the steps of one start of a run."""

    def __init__(self, *, num_steps: int, tokens_per_step: int, completed_steps: int) -> None:
        self._num_steps = num_steps
        self._tokens_per_step = tokens_per_step
        self._first = completed_steps
        self._started = self._last = time.perf_counter()
        self._unshown: list[float] = []

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
        self._unshown.append(seconds)
        return {
            "train/loss": result.loss,
            "train/grad_norm": result.grad_norm,
            "train/lr": lr,
            "train/skipped": float(result.skipped),
            "train/tokens": float(consumed_tokens),
            "speed/step_seconds": seconds,
            "speed/tokens_per_second": self._tokens_per_step / seconds,
            "speed/data_wait_seconds": data_wait_seconds,
            "memory/host_bytes": float(psutil.Process().memory_info().rss),
            "memory/device_bytes": float(torch.cuda.max_memory_allocated()) if torch.cuda.is_initialized() else None,
        }

    def restart_clock(self) -> None:
        """Leave out of the next step what was done since the last one: evaluation, saving."""
        self._last = time.perf_counter()

    def line(self, step: int, figures: dict[str, float | None]) -> str:
        """One line for the terminal; its speed is that of all steps since the line before."""
        left = (time.perf_counter() - self._started) / max(step - self._first, 1) * (self._num_steps - step)
        norm, validation = figures["train/grad_norm"], figures.get("validation/loss")
        speed = self._tokens_per_step * len(self._unshown) / sum(self._unshown)
        self._unshown = []
        return (
            f"step {step}/{self._num_steps}  loss {figures['train/loss']:.4f}"
            f"{'' if validation is None else f'  validation {validation:.4f}'}  lr {figures['train/lr']:.2e}"
            f"{'' if norm is None else f'  grad norm {norm:.3f}'}  {speed:,.0f} tokens/s  {_duration(left)} left"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
