"""The figures of a step and the line that tells them."""

import time

import pytest

from pipeline.engine.engine import StepResult
from pipeline.monitor.progress import Progress

RESULT = StepResult(loss=2.5, grad_norm=0.5, skipped=False, diverged=False)


def progress(*, peak_flops: float | None) -> Progress:
    return Progress(num_steps=4, num_tokens=4000, consumed_tokens=0, device_flops_per_token=2e9, peak_flops=peak_flops)


def test_operations_follow_from_the_tokens_of_the_step() -> None:
    timed = progress(peak_flops=1e15)
    time.sleep(0.01)
    figures = timed.step_done(RESULT, lr=0.1, consumed_tokens=1000, data_wait_seconds=0.0)
    speed = figures["speed/tokens_per_second"]
    assert speed is not None
    assert figures["speed/tflops_per_device"] == pytest.approx(speed * 2e9 / 1e12)
    assert figures["speed/mfu"] == pytest.approx(speed * 2e9 / 1e15)
    assert f"MFU {speed * 2e9 / 1e15:.1%}" in timed.line(1, figures)


def test_without_a_known_peak_no_utilization_is_told() -> None:
    timed = progress(peak_flops=None)
    figures = timed.step_done(RESULT, lr=0.1, consumed_tokens=1000, data_wait_seconds=0.0)
    assert figures["speed/mfu"] is None
    assert figures["speed/tflops_per_device"]
    assert "MFU" not in timed.line(1, figures)


def test_a_line_tells_the_speed_of_all_steps_since_the_line_before() -> None:
    timed, seconds = progress(peak_flops=None), 0.0
    for consumed in (1000, 3000):
        figures = timed.step_done(RESULT, lr=0.1, consumed_tokens=consumed, data_wait_seconds=0.0)
        seconds += figures["speed/step_seconds"] or 0
    assert f"  {3000 / seconds:,.0f} tokens/s" in timed.line(2, figures)
