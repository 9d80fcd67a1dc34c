"""The mapping of parameters and config to Hugging Face's Llama and its kin, against plain loops and their classes."""

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.schema import ModelConfig
from pipeline.convert.llama_form import CLASSES, FUSED_QKV, hugging_face_config, to_hugging_face
from pipeline.convert.special_ids import SpecialIds
from pipeline.models import gpt
from tests.small_models import run_config

architectures = pytest.mark.parametrize("architecture", CLASSES)


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    architecture = draw(st.sampled_from(list(CLASSES)))
    groups = draw(st.integers(1, 4))
    heads = groups * draw(st.integers(1, 3))
    width = 2 * draw(st.integers(1, 4))
    free = {} if architecture == "qwen2" else {"head_dim": 2 * draw(st.integers(1, 4))}
    return run_config(
        architecture=architecture,
        num_layers=draw(st.integers(1, 3)),
        hidden_size=heads * width,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        ffn_hidden_size=draw(st.integers(1, 9)),
        vocab_size=draw(st.integers(1, 300)),
        tie_embeddings=draw(st.booleans()),
        **free,
    ).model


def config_of(model: ModelConfig, **ids: int) -> Any:
    return transformers.AutoConfig.for_model(**hugging_face_config(model, torch.bfloat16, SpecialIds(**ids)))


@settings(max_examples=30)
@given(models())
def test_fused_rows_go_where_a_plain_loop_puts_them(model: ModelConfig) -> None:
    for row in gpt.parameter_table(model):
        if not row.local_name.startswith(FUSED_QKV):
            continue
        fused = torch.arange(row.numel).view(row.shape)
        parts = {name.split(".")[-2]: tensor for name, tensor in to_hugging_face(row, fused, model)}
        per_group = model.num_attention_heads // model.num_key_value_heads
        taken = 0
        for group in range(model.num_key_value_heads):
            heads = [("q_proj", group * per_group + index) for index in range(per_group)]
            for part, head in [*heads, ("k_proj", group), ("v_proj", group)]:
                found = parts[part][head * model.head_dim : (head + 1) * model.head_dim]
                assert torch.equal(found, fused[taken : taken + model.head_dim])
                taken += model.head_dim
        assert taken == row.shape[0] == sum(len(part) for part in parts.values())


@settings(max_examples=30)
@given(models())
def test_names_and_shapes_are_those_of_transformers(model: ModelConfig) -> None:
    with torch.device("meta"):
        other = getattr(transformers, CLASSES[model.architecture])(config_of(model))
    theirs = {name: parameter.shape for name, parameter in other.named_parameters()}
    ours = {
        name: tensor.shape
        for row in gpt.parameter_table(model)
        for name, tensor in to_hugging_face(row, torch.empty(row.shape, device="meta"), model)
    }
    assert ours == theirs


def test_gate_is_the_first_half_of_fc1() -> None:
    model = run_config().model
    row = next(row for row in gpt.parameter_table(model) if row.name == "layers.1.mlp.linear_fc1.weight")
    fused = torch.randn(row.shape)
    found = dict(to_hugging_face(row, fused, model))
    assert torch.equal(found["model.layers.1.mlp.gate_proj.weight"], fused[: model.ffn_hidden_size])
    assert torch.equal(found["model.layers.1.mlp.up_proj.weight"], fused[model.ffn_hidden_size :])


@architectures
@pytest.mark.parametrize("tied", [False, True])
def test_config_says_what_the_model_is(architecture: str, tied: bool) -> None:
    shape: dict[str, Any] = {"head_dim": 12} if architecture != "qwen2" else {}
    model = run_config(
        architecture=architecture,
        rope_theta=500000.0,
        norm_epsilon=3e-6,
        tie_embeddings=tied,
        activation="relu",
        attention_dropout=0.1,
        num_key_value_heads=2,
        **shape,
    ).model
    config = config_of(model, bos=1, eos=2)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 500000.0}
    assert (config.rms_norm_eps, config.head_dim, config.tie_word_embeddings) == (3e-6, model.head_dim, tied)
    assert (config.hidden_act, config.attention_dropout, config.num_key_value_heads) == ("relu", 0.1, 2)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, None)
    assert config.dtype == torch.bfloat16
    assert config.max_position_embeddings == model.seq_len


@architectures
def test_scaled_frequencies_are_said_to_readers_of_every_age(architecture: str) -> None:
    llama3 = {"rope_low_freq_factor": 1.5, "rope_high_freq_factor": 5.0, "rope_original_seq_len": 16}
    shape: dict[str, Any] = {"architecture": architecture, "rope_theta": 5e5, "rope_factor": 4.0}
    scaled = hugging_face_config(
        run_config(**shape, **llama3, rope_scaling="llama3").model, torch.float32, SpecialIds()
    )
    asked = {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.5,
        "high_freq_factor": 5.0,
        "original_max_position_embeddings": 16,
    }
    assert scaled["rope_scaling"] == asked
    assert (scaled["rope_parameters"], scaled["rope_theta"]) == ({"rope_theta": 5e5} | asked, 5e5)
    linear = hugging_face_config(run_config(**shape, rope_scaling="linear").model, torch.float32, SpecialIds())
    assert linear["rope_scaling"] == {"rope_type": "linear", "type": "linear", "factor": 4.0}
    plain = hugging_face_config(run_config(architecture=architecture).model, torch.float32, SpecialIds())
    assert plain["rope_scaling"] is None


@pytest.mark.parametrize("window", [None, 7])
def test_a_window_is_mistrals_own(window: int | None) -> None:
    config = config_of(run_config(architecture="mistral", sliding_window=window).model)
    assert config.sliding_window == window  # which the class takes for 4,096 where it is left out


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_windows_of_qwen_are_off(architecture: str) -> None:
    config = config_of(run_config(architecture=architecture, num_layers=3).model)
    assert config.sliding_window is None
    assert config.layer_types == ["full_attention"] * 3
    assert (config.use_sliding_window, config.max_window_layers) == (False, 3)
