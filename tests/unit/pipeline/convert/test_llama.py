"""The mapping of parameters and config to Hugging Face's Llama, against plain loops and transformers' own class."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.config.schema import ModelConfig
from pipeline.convert.llama import FUSED_QKV, SpecialIds, hugging_face_config, to_hugging_face
from pipeline.models import gpt
from tests.small_models import run_config


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    groups = draw(st.integers(1, 4))
    heads = groups * draw(st.integers(1, 3))
    return run_config(
        num_layers=draw(st.integers(1, 3)),
        hidden_size=heads * draw(st.integers(1, 5)),
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=2 * draw(st.integers(1, 4)),
        ffn_hidden_size=draw(st.integers(1, 9)),
        vocab_size=draw(st.integers(1, 300)),
        tie_embeddings=draw(st.booleans()),
    ).model


@settings(max_examples=30, deadline=None)
@given(models())
def test_fused_rows_go_where_a_plain_loop_puts_them(model: ModelConfig) -> None:
    row = next(row for row in gpt.parameter_table(model) if row.local_name == FUSED_QKV)
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


@settings(max_examples=30, deadline=None)
@given(models())
def test_names_and_shapes_are_those_of_transformers(model: ModelConfig) -> None:
    config = LlamaConfig(**hugging_face_config(model, dtype=torch.float32, ids=SpecialIds()))
    with torch.device("meta"):
        theirs = {name: parameter.shape for name, parameter in LlamaForCausalLM(config).named_parameters()}
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


@pytest.mark.parametrize("tied", [False, True])
def test_config_says_what_the_model_is(tied: bool) -> None:
    model = run_config(rope_theta=500000.0, norm_epsilon=1e-6, tie_embeddings=tied, head_dim=12).model
    config = LlamaConfig(**hugging_face_config(model, dtype=torch.bfloat16, ids=SpecialIds(bos=1, eos=2)))
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 500000.0}
    assert (config.rms_norm_eps, config.head_dim, config.tie_word_embeddings) == (1e-6, 12, tied)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, None)
    assert config.dtype == torch.bfloat16
    assert config.max_position_embeddings == model.seq_len
