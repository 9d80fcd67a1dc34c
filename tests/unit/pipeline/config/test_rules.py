"""What values must agree on: each rule's message, and that every value offered is one that is accepted."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.config.load import build, resolved
from pipeline.config.rule import with_value
from pipeline.config.rules import RULES, broken_rules, ineffective_settings, slow_settings
from pipeline.config.schema import RunConfig
from pipeline.errors import ConfigError
from tests.unit.pipeline.config.sections import sections

small = st.integers(1, 9)
sizes = st.fixed_dictionaries(
    {
        "model.num_layers": st.integers(1, 24),
        "model.hidden_size": st.integers(1, 200),
        "model.num_attention_heads": st.integers(1, 16),
        "model.ffn_hidden_size": st.integers(1, 200),
        "model.seq_len": st.integers(1, 64),
        "parallel.tensor_parallel_size": small,
        "parallel.pipeline_parallel_size": small,
        "parallel.data_parallel_size": small,
        "parallel.sequence_parallel": st.booleans(),
        "parallel.zero_stage": st.integers(0, 3),
        "batch.micro_batch_size": small,
        "batch.global_batch_size": st.integers(1, 500),
    },
    optional={
        "model.num_key_value_heads": st.integers(1, 16),
        "model.head_dim": st.integers(1, 64),
        "batch.gradient_accumulation_steps": small,
        "batch.ramp_up_start": st.integers(1, 100),
        "batch.ramp_up_increment": st.integers(1, 100),
        "batch.ramp_up_samples": st.integers(1, 1000),
    },
)


def unchecked(changes: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate(sections(changes))


def refusal(changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        build(sections(changes), check_data=False)
    return str(caught.value)


@given(sizes)
def test_every_offered_value_is_accepted(changes: dict[str, Any]) -> None:
    config = unchecked(changes)
    for problem in broken_rules(config):
        for key, offers in problem.offers.items():
            for offer in offers:
                mended = with_value(config, key, offer)
                assert not [rule for rule in RULES if key in rule.reads and rule.broken(mended)], (key, offer)


@given(tensor=small, stages=small, copies=small, micro=small, rounds=small, groups=small, queries=small, pairs=small)
def test_sizes_that_fit_are_accepted_and_multiply_out(
    tensor: int, stages: int, copies: int, micro: int, rounds: int, groups: int, queries: int, pairs: int
) -> None:
    heads = tensor * groups * queries
    changes = {
        "model.num_layers": 2 * stages,
        "model.num_attention_heads": heads,
        "model.num_key_value_heads": tensor * groups,
        "model.hidden_size": heads * 2 * pairs,
        "model.ffn_hidden_size": tensor * 3,
        "parallel.tensor_parallel_size": tensor,
        "parallel.pipeline_parallel_size": stages,
        "parallel.data_parallel_size": copies,
        "batch.micro_batch_size": micro,
        "batch.global_batch_size": micro * copies * rounds,
    }
    config = build(sections(changes), check_data=False)
    assert config.gradient_accumulation_steps == rounds
    assert config.model.head_dim == 2 * pairs
    assert config.parallel.world_size == tensor * stages * copies
    assert config.tokens_per_step == micro * copies * rounds * config.model.seq_len


@given(sizes)
def test_resolved_config_is_the_same_config(changes: dict[str, Any]) -> None:
    config = unchecked(changes)
    assume(config.model.head_dim > 0)
    assert RunConfig.model_validate(resolved(config)) == config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model.num_attention_heads": 6, "model.hidden_size": 96, "parallel.tensor_parallel_size": 4},
            "set model.num_attention_heads=4 or 8, or parallel.tensor_parallel_size=2.",
        ),
        (
            {"model.num_layers": 3, "parallel.pipeline_parallel_size": 4},
            "set parallel.pipeline_parallel_size=3, or model.num_layers=4.",
        ),
        (
            {"batch.global_batch_size": 30, "parallel.data_parallel_size": 4},
            "set batch.global_batch_size=24 or 32, or parallel.data_parallel_size=3 or 5.",
        ),
        (
            {"parallel.zero_stage": 3, "parallel.pipeline_parallel_size": 4},
            "parallel.zero_stage=3 cannot be used with parallel.pipeline_parallel_size=4: DeepSpeed's pipeline engine "
            "takes ZeRO 0 or 1. Set zero_stage=1 or pipeline_parallel_size=1.",
        ),
        ({"model.num_key_value_heads": 3}, "set model.num_key_value_heads=2 or 4."),
        ({"model.hidden_size": 60}, "set model.hidden_size=56 or 64"),
        ({"model.hidden_size": 62, "model.head_dim": 8}, "set model.hidden_size=60 or 64"),
        ({"model.head_dim": 7}, "set model.head_dim=6 or 8."),
        ({"model.ffn_hidden_size": 130, "parallel.tensor_parallel_size": 4}, "set model.ffn_hidden_size=128 or 132"),
        ({"batch.gradient_accumulation_steps": 3}, "set batch.gradient_accumulation_steps=4"),
        ({"parallel.sequence_parallel": True}, "set parallel.sequence_parallel=false"),
        (
            {"parallel.sequence_parallel": True, "parallel.tensor_parallel_size": 4, "model.seq_len": 33},
            "set model.seq_len=32 or 36",
        ),
        (
            {"parallel.zero_stage": 0, "precision.dtype": "bf16"},
            "precision.dtype=bf16 cannot be used with parallel.zero_stage=0",
        ),
        ({"precision.grad_accum_dtype": "fp16"}, "gradients come in precision.dtype=bf16"),
        ({"schedule.warmup_steps": 21}, "the run ends at run.steps=20"),
        ({"schedule.warmup_steps": 10, "schedule.decay_steps": 5}, "schedule.decay_steps=5 is wrong"),
        ({"schedule.min_lr": 0.1}, "schedule.min_lr=0.1 is wrong"),
    ],
)
def test_each_rule_names_the_way_out(changes: dict[str, Any], expected: str) -> None:
    message = refusal(changes)
    assert expected in message
    assert "problems:" not in message


def test_rules_are_checked_beside_wrong_fields() -> None:
    message = refusal({"model.num_layers": "four", "model.ffn_hidden_size": 130, "parallel.tensor_parallel_size": 4})
    assert "model.num_layers=four is wrong" in message
    assert "model.ffn_hidden_size=130 is wrong" in message


def test_a_rule_is_left_out_while_a_value_it_reads_is_wrong() -> None:
    message = refusal({"model.num_attention_heads": 0, "parallel.tensor_parallel_size": 4})
    assert message == "model.num_attention_heads=0 is wrong because it must be 1 or more; set it to 1 or more."


def test_settings_without_effect_are_named() -> None:
    changes = {"checkpoint.keep_last": 2, "monitor.eval_every_steps": 5, "schedule.decay": "constant"}
    found = ineffective_settings(build(sections(changes), check_data=False))
    assert [sentence.split("=")[0] for sentence in found] == ["checkpoint.keep_last", "monitor.eval_every_steps"]


@pytest.mark.parametrize(
    ("device", "dtype", "slow"), [("cpu", "fp16", True), ("cuda", "fp16", False), ("cpu", "bf16", False)]
)
def test_fp16_is_said_to_be_slow_on_a_cpu(device: str, dtype: str, slow: bool) -> None:
    found = slow_settings(build(sections({"run.device": device, "precision.dtype": dtype}), check_data=False))
    assert bool(found) is slow
    assert all(sentence.startswith("precision.dtype=fp16 is slow on a CPU") for sentence in found)
