"""The most that a device computes, to which the speed of a run is compared."""

import re

import torch

from pipeline.config.schema import Dtype

TERA = 1e12

# Name of the device, as torch tells it -> tera-operations per second of products with fp32 sums: of 16-bit numbers on
# tensor cores, without the sparsity that vendors print beside it, and of fp32 outside of them, as TF32 is not used.
# The first match counts. From the vendors' data sheets of each.
_HALVES_AND_FP32 = (
    (r"\bV100S", 130.0, 16.4),  # NVIDIA V100 (2020)
    (r"\bV100.*PCI", 112.0, 14.0),
    (r"\bV100\b", 125.0, 15.7),
    (r"\bA10\b", 125.0, 31.2),  # NVIDIA A10 (2021)
    (r"\bA100\b", 312.0, 19.5),  # NVIDIA A100 (2021)
    (r"\bL40S\b", 362.0, 91.6),  # NVIDIA L40S (2023)
    (r"\bH100 PCIe\b", 756.0, 51.0),  # NVIDIA H100 (2022)
    (r"\b(H100|H200) NVL\b", 835.0, 60.0),  # NVIDIA H100 NVL (2023), H200 NVL (2024)
    (r"\b(H100|H200)\b", 989.0, 67.0),  # NVIDIA H100 SXM (2022), H200 SXM (2024)
    (r"\bB200\b", 2250.0, 75.0),  # NVIDIA HGX B200 (2024), an eighth of it
    (r"\bMI300X\b", 1307.4, 163.4),  # AMD Instinct MI300X (2023)
)
_WITHOUT_BF16 = r"\bV100"


def peak_flops(device: torch.device, dtype: Dtype) -> float | None:
    """The peak of `device` in operations per second of products of `dtype`; None where it is not known, as on CPUs."""
    return peak_of(torch.cuda.get_device_name(device), dtype) if device.type == "cuda" else None


def peak_of(name: str, dtype: Dtype) -> float | None:
    """The peak of the device of this name, likewise."""
    if dtype == "bf16" and re.search(_WITHOUT_BF16, name):
        return None
    for pattern, halves, fp32 in _HALVES_AND_FP32:
        if re.search(pattern, name):
            return TERA * (fp32 if dtype == "fp32" else halves)
    return None
