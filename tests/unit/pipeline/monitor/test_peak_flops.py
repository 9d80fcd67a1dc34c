"""Which peak is taken for which device."""

import pytest
import torch

from pipeline.config.schema import Dtype
from pipeline.monitor.peak_flops import TERA, peak_flops, peak_of


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312.0),
        ("NVIDIA A100 80GB PCIe", "fp32", 19.5),
        ("NVIDIA A10", "fp16", 125.0),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.0),
        ("NVIDIA H100 PCIe", "bf16", 756.0),
        ("NVIDIA H200", "fp16", 989.0),
        ("NVIDIA H200 NVL", "bf16", 835.0),
        ("NVIDIA B200", "bf16", 2250.0),
        ("NVIDIA L40S", "fp32", 91.6),
        ("Tesla V100-SXM2-16GB", "fp16", 125.0),
        ("Tesla V100-PCIE-32GB", "fp16", 112.0),
        ("Tesla V100S-PCIE-32GB", "fp32", 16.4),
        ("AMD Instinct MI300X", "bf16", 1307.4),
    ],
)
def test_known_devices(name: str, dtype: Dtype, expected: float) -> None:
    assert peak_of(name, dtype) == expected * TERA


@pytest.mark.parametrize("name", ["NVIDIA A10G", "NVIDIA GB200", "NVIDIA GeForce RTX 4090", "Tesla T4", ""])
def test_devices_that_only_resemble_known_ones_have_no_peak(name: str) -> None:
    assert peak_of(name, "fp16") is None


def test_volta_has_no_bf16() -> None:
    assert peak_of("Tesla V100-SXM2-16GB", "bf16") is None


def test_a_cpu_has_no_peak() -> None:
    assert peak_flops(torch.device("cpu"), "fp32") is None
