"""One GPU trains every family as the CPU does in fp32, on torch's fast attention kernels; what it needs is printed.

On a CPU the number formats alone are compared, in the same way.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline import launch
from pipeline.config.schema import Dtype, RunConfig
from pipeline.devices import Device
from pipeline.monitor.metrics import read_metrics
from tests.distributed import runs
from tests.distributed.compare import apart
from tests.distributed.gpu_ranks import HANG_SECONDS
from tests.parity.matrix.cases import ALL_HEADS, DOCUMENTS, MODELS
from tests.parity.matrix.data import make_data

pytestmark = pytest.mark.timeout(HANG_SECONDS)

STEPS = 50
LEARNT = 0.5  # nats that a loss has to fall by, at least: curves on which nothing happens agree always

# Torch's names of the kernels behind scaled_dot_product_attention: FlashAttention, cuDNN's, and the memory-efficient
# one, which is the only one that takes a bias with a gradient, as T5's is; and FlexAttention's, which is compiled.
FUSED = r"flash_fwd|cudnn.*(sdpa|flash)|fmha_cutlass"
EFFICIENT = r"fmha_cutlass"
FLEX = r"flex_attention"


@dataclass(frozen=True, kw_only=True)
class GpuCase:
    """A family on the GPU.

    Attributes:
        kernel: pattern of a kernel that must have run.
        large: its model where speed is measured, beside LARGE.
    """

    name: str
    model: str
    kernel: str
    options: Mapping[str, Any] = field(default_factory=dict)
    large: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    GpuCase(name="llama", model="llama", kernel=FUSED, large={"model.ffn_hidden_size": 2816}),
    GpuCase(name="gpt2", model="gpt2", kernel=FUSED),
    GpuCase(name="bert", model="bert", kernel=FUSED, large={"model.seq_len": 512}),
    GpuCase(
        name="t5",
        model="t5",
        kernel=EFFICIENT,
        large={"model.seq_len": 512, "objective.target_len": 114, "model.num_layers": 6},
    ),
    # Longer than a block of FlexAttention, so that blocks are left out.
    GpuCase(name="llama_documents", model="llama", kernel=FLEX, options={**DOCUMENTS, "model.seq_len": 160}),
)
LARGE = {
    "model.num_layers": 8,
    "model.hidden_size": 1024,
    "model.num_attention_heads": 16,
    "model.ffn_hidden_size": 4096,
    "model.seq_len": 1024,
    "model.vocab_size": 32_000,
    "batch.micro_batch_size": 8,
    "batch.global_batch_size": 16,
    "run.steps": 15,
}
WARM_UP = 5  # steps that do not count for the speed

# Relative to the CPU's losses in fp32, of each step. Values are rounded to 2^-9 or 2^-12 of their size, and what
# differs grows while the loss falls by half: measured on a CPU, bf16 2e-3, but 7e-3 for T5, whose embeddings of about 1
# hide updates of 3e-4 in their rounding; fp16 1e-4 and 8e-4. fp32: a GPU takes sums in another order.
TOLERANCES: Mapping[Dtype, float] = {"fp32": 1e-4, "bf16": 1e-2, "fp16": 2e-3}


def run_config(
    data: Path, run_dir: Path, case: GpuCase, dtype: Dtype, device: Device, overrides: Mapping[str, Any] | None = None
) -> RunConfig:
    base = {"run.steps": STEPS, "run.device": device, "precision.dtype": dtype, "optimizer.lr": 3e-4}
    heads = {"model.hidden_size": 128, "model.num_attention_heads": 4}  # of 32, which fast kernels take
    options = {**heads, **MODELS[case.model], **case.options, **base, **(overrides or {})}
    return runs.run_config(data, run_dir, (1, 1, 1, 1), options)


def train(config: RunConfig) -> list[str]:
    """Train; the GPU's kernels of a step."""
    function, log_dir = "tests.distributed.gpu_ranks:train_and_name_kernels", Path(config.run.dir) / "log"
    device: Device = "cuda" if config.run.device == "cuda" else "cpu"
    [names] = launch.run(runs.CALL, function, config, world_size=1, log_dir=log_dir, device=device)
    return names


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def on_cpu(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[GpuCase], RunConfig]:
    """The run in fp32 on the CPU, which is made once."""
    known: dict[str, RunConfig] = {}

    def get(case: GpuCase) -> RunConfig:
        if case.name not in known:
            known[case.name] = run_config(text, tmp_path_factory.mktemp("cpu"), case, "fp32", "cpu")
            train(known[case.name])
        return known[case.name]

    return get


@pytest.mark.parametrize(
    "device", [pytest.param("cuda", marks=pytest.mark.gpu), pytest.param("cpu", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_trains_along_the_curve_of_fp32_on_a_cpu(
    case: GpuCase,
    dtype: Dtype,
    device: Device,
    text: Path,
    tmp_path: Path,
    on_cpu: Callable[[GpuCase], RunConfig],
    record_property: Callable[[str, object], None],
) -> None:
    expected, found = on_cpu(case), run_config(text, tmp_path, case, dtype, device)
    kernels = train(found)
    difference, losses = apart(found, expected), runs.figures(expected)
    record_property("largest relative difference", difference)
    print(f"\n{case.name} in {dtype} on {device}: losses {losses[0]:.3f} to {losses[-1]:.3f}, apart {difference:.1e}")
    assert losses[-1] < losses[0] - LEARNT
    assert difference <= TOLERANCES[dtype]
    if device == "cuda" and dtype != "fp32":
        assert any(re.search(case.kernel, name) for name in kernels), kernels


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("case", [case for case in CASES if not case.options], ids=lambda case: case.name)
def test_speed_of_a_larger_model(
    case: GpuCase, dtype: Dtype, text: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    config = run_config(text, tmp_path, case, dtype, "cuda", LARGE | ALL_HEADS | dict(case.large))
    kernels = train(config)
    assert any(re.search(case.kernel, name) for name in kernels), kernels
    seconds = runs.figures(config, "speed/step_seconds")[WARM_UP:]
    speeds = runs.figures(config, "speed/tflops_per_device")[WARM_UP:]
    middle = sorted(range(len(seconds)), key=seconds.__getitem__)[len(seconds) // 2]
    figures = {
        "tokens/s": f"{config.tokens_per_step / seconds[middle]:,.0f}",
        "TFLOP/s": f"{speeds[middle]:.1f}",
        "memory, GB": f"{runs.figures(config, 'memory/device_bytes')[-1] / 1e9:.2f}",
    }
    records = read_metrics(Path(config.run.dir))
    if "speed/mfu" in records[-1]:
        figures["MFU"] = f"{records[WARM_UP:][middle]['speed/mfu']:.1%}"
    print(f"\n{case.name} in {dtype}:", ", ".join(f"{name} {value}" for name, value in figures.items()))
    for name, value in figures.items():
        record_property(name, value)
    assert speeds[middle] > 0
