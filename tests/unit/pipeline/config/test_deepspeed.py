"""The dict for DeepSpeed: complete, without "auto", and true to the run config."""

from itertools import product
from typing import Any

import pytest

from pipeline.config.deepspeed import deepspeed_config
from pipeline.config.load import build
from tests.unit.pipeline.config.sections import sections


def test_batch_sizes_agree_with_each_other() -> None:
    config = build(sections({"parallel.data_parallel_size": 2, "batch.global_batch_size": 24}), check_data=False)
    made = deepspeed_config(config)
    assert made["train_batch_size"] == 24
    assert made["train_micro_batch_size_per_gpu"] * made["gradient_accumulation_steps"] * 2 == 24


def values(value: Any) -> list[Any]:
    return [leaf for item in value.values() for leaf in values(item)] if isinstance(value, dict) else [value]


@pytest.mark.parametrize(("zero_stage", "dtype"), [(0, "fp32"), *product([1, 2, 3], ["fp32", "bf16", "fp16"])])
def test_nothing_is_left_for_deepspeed_to_guess(zero_stage: int, dtype: str) -> None:
    config = build(sections({"parallel.zero_stage": zero_stage, "precision.dtype": dtype}), check_data=False)
    made = deepspeed_config(config)
    assert "auto" not in values(made)
    assert made["zero_optimization"]["stage"] == zero_stage
    assert made["bf16"]["enabled"] is (dtype == "bf16")
    assert made["fp16"]["enabled"] is (dtype == "fp16")


@pytest.mark.parametrize(
    ("zero_stage", "dtype", "asked", "expected"),
    [
        (0, "fp32", None, "fp32"),
        (1, "bf16", None, "fp32"),
        (2, "fp16", None, "fp32"),
        (3, "bf16", "bf16", "bf16"),
    ],
)
def test_gradients_are_summed_and_sent_in_one_format(
    zero_stage: int, dtype: str, asked: str | None, expected: str
) -> None:
    changes = {"parallel.zero_stage": zero_stage, "precision.dtype": dtype, "precision.grad_accum_dtype": asked}
    made = deepspeed_config(build(sections(changes), check_data=False))
    assert made["data_types"]["grad_accum_dtype"] == expected
    assert made["communication_data_type"] == expected


def test_activations_between_stages_are_not_taken_for_replicated() -> None:
    made = deepspeed_config(build(sections({"parallel.pipeline_parallel_size": 2}), check_data=False))
    assert made["pipeline"] == {"pipe_partitioned": False, "grad_partitioned": False}


@pytest.mark.parametrize(("device_type", "expected"), [("cpu", False), ("cuda", True), (None, False)])
def test_communication_overlaps_with_cuda_only(device_type: str | None, expected: bool) -> None:
    config = build(sections({"parallel.zero_stage": 2}), check_data=False)
    assert deepspeed_config(config, device_type=device_type)["zero_optimization"]["overlap_comm"] is expected
