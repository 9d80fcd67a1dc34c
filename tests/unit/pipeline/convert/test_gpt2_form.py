"""The mapping of parameters and config to Hugging Face's GPT-2, against plain loops and transformers' own class."""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, GPT2LMHeadModel

from pipeline.config.schema import ModelConfig
from pipeline.convert.gpt2_form import FUSED_QKV, hugging_face_config, to_hugging_face
from pipeline.convert.special_ids import SpecialIds
from pipeline.models import gpt
from tests.small_models import run_config

models = st.builds(
    lambda heads, width, **shape: (
        run_config(architecture="gpt2", num_attention_heads=heads, hidden_size=heads * width, **shape).model
    ),
    heads=st.integers(1, 5),
    width=st.integers(1, 7),
    num_layers=st.integers(1, 3),
    ffn_hidden_size=st.integers(1, 9),
    vocab_size=st.integers(1, 300),
    tie_embeddings=st.booleans(),
)


def config_of(model: ModelConfig) -> Any:
    return AutoConfig.for_model(**hugging_face_config(model, torch.bfloat16, SpecialIds(eos=2)))


@settings(max_examples=30)
@given(models)
def test_fused_rows_go_where_a_plain_loop_puts_them(model: ModelConfig) -> None:
    width, hidden = model.head_dim, model.hidden_size
    for row in gpt.parameter_table(model):
        if not row.local_name.startswith(FUSED_QKV):
            continue
        fused = torch.arange(row.numel).view(row.shape)
        [(_, found)] = to_hugging_face(row, fused, model)
        outputs = found.t() if found.dim() == 2 else found  # Conv1D has the inputs first
        taken = 0
        for head in range(model.num_attention_heads):
            for part in range(3):  # query, key, value
                start = part * hidden + head * width
                assert torch.equal(outputs[start : start + width], fused[taken : taken + width])
                taken += width
        assert taken == row.shape[0] == len(outputs)


@settings(max_examples=30)
@given(models)
def test_names_and_shapes_are_those_of_transformers(model: ModelConfig) -> None:
    with torch.device("meta"):
        theirs = {name: parameter.shape for name, parameter in GPT2LMHeadModel(config_of(model)).named_parameters()}
    ours = {
        name: tensor.shape
        for row in gpt.parameter_table(model)
        for name, tensor in to_hugging_face(row, torch.empty(row.shape, device="meta"), model)
    }
    assert ours == theirs


def test_matrices_of_layers_are_transposed_and_embeddings_are_not() -> None:
    model = run_config(architecture="gpt2", tie_embeddings=False).model
    names = {
        "layers.1.self_attention.linear_proj.weight": "transformer.h.1.attn.c_proj.weight",
        "layers.1.mlp.linear_fc1.weight": "transformer.h.1.mlp.c_fc.weight",
        "layers.1.mlp.linear_fc2.weight": "transformer.h.1.mlp.c_proj.weight",
    }
    for row in gpt.parameter_table(model):
        tensor = torch.randn(row.shape)
        [(name, found)] = to_hugging_face(row, tensor, model)
        if row.name in names:
            assert name == names[row.name]
            assert torch.equal(found, tensor.t())
        elif row.name.startswith(("embedding.", "head.", "final.")):
            assert torch.equal(found, tensor)


def test_config_says_what_the_model_is() -> None:
    model = run_config(
        architecture="gpt2",
        activation="gelu",
        norm_epsilon=3e-6,
        hidden_dropout=0.1,
        attention_dropout=0.2,
        tie_embeddings=False,
    ).model
    config = config_of(model)
    assert (config.n_embd, config.n_inner, config.n_head, config.n_layer) == (32, 48, 4, 2)
    assert (config.max_position_embeddings, config.vocab_size) == (model.seq_len, model.vocab_size)
    assert (config.activation_function, config.layer_norm_epsilon) == ("gelu", 3e-6)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.1, 0.1, 0.2)
    assert not config.tie_word_embeddings
    assert (config.bos_token_id, config.eos_token_id) == (None, 2)  # the class's own are GPT-2's
    plain = run_config(architecture="gpt2").model
    assert (config_of(plain).activation_function, config_of(plain).tie_word_embeddings) == ("gelu_new", True)
