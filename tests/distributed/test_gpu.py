"""One GPU trains as the CPU does, in each number format."""

from pathlib import Path

import pytest

from pipeline import launch
from tests.distributed import runs
from tests.small_models import make_data

# Relative to the CPU's fp32 losses. fp32: sums in another order. bf16 and fp16: a loss is the mean of 256 that are each
# off by the rounding of a logit to 8 or 11 bits, and the weights drift apart over 20 steps of 1e-4.
TOLERANCES = {"fp32": 1e-4, "bf16": 2e-3, "fp16": 1e-3}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_gpu_trains_as_the_cpu_does(tmp_path: Path, dtype: str) -> None:
    data = make_data(tmp_path / "data")
    on_cpu = runs.run_config(data, tmp_path / "cpu", (1, 1, 1, 1))
    on_gpu = runs.run_config(data, tmp_path / "gpu", (1, 1, 1, 1), {"run.device": "cuda", "precision.dtype": dtype})
    for config in (on_cpu, on_gpu):
        launch.train(config)
    assert runs.figures(on_gpu) == pytest.approx(runs.figures(on_cpu), rel=TOLERANCES[dtype])
    assert runs.figures(on_gpu, "memory/device_bytes")[-1] > 0
