"""The mapping of parameters and config to Hugging Face's BERT, against plain loops and transformers' own classes."""

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig

from pipeline.config.schema import ModelConfig
from pipeline.convert.bert_form import FUSED_QKV, hugging_face_config, to_hugging_face
from pipeline.convert.special_ids import SpecialIds
from pipeline.models import bert
from tests.small_encoders import model_config


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    heads = draw(st.integers(1, 4))
    return model_config(
        pair_head=draw(st.booleans()),
        num_layers=draw(st.integers(1, 3)),
        hidden_size=heads * draw(st.integers(1, 5)),
        num_attention_heads=heads,
        ffn_hidden_size=draw(st.integers(1, 9)),
        vocab_size=draw(st.integers(1, 300)),
        num_token_types=draw(st.integers(2, 4)),
    )


@settings(max_examples=30, deadline=None)
@given(models(), st.sampled_from(["weight", "bias"]))
def test_fused_rows_go_where_a_plain_loop_puts_them(model: ModelConfig, kind: str) -> None:
    row = next(row for row in bert.parameter_table(model) if row.local_name == f"{FUSED_QKV}.{kind}")
    fused = torch.arange(row.numel).view(row.shape)
    parts = {name.split(".")[-2]: tensor for name, tensor in to_hugging_face(row, fused, model)}
    taken = 0
    for head in range(model.num_attention_heads):
        for part in ("query", "key", "value"):
            found = parts[part][head * model.head_dim : (head + 1) * model.head_dim]
            assert torch.equal(found, fused[taken : taken + model.head_dim])
            taken += model.head_dim
    assert taken == row.shape[0] == sum(len(part) for part in parts.values())


@settings(max_examples=30, deadline=None)
@given(models())
def test_names_and_shapes_are_those_of_transformers(model: ModelConfig) -> None:
    content = hugging_face_config(model, torch.float32, SpecialIds())
    [class_name] = content["architectures"]
    assert class_name == ("BertForPreTraining" if model.pair_head else "BertForMaskedLM")
    with torch.device("meta"):
        built = getattr(transformers, class_name)(BertConfig(**content))
    theirs = {name: parameter.shape for name, parameter in built.named_parameters()}
    ours = {
        name: tensor.shape
        for row in bert.parameter_table(model)
        for name, tensor in to_hugging_face(row, torch.empty(row.shape, device="meta"), model)
    }
    assert ours == theirs


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({}, {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2}),
        ({"activation": "gelu_tanh", "norm_epsilon": 1e-5}, {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5}),
        ({"activation": "relu", "num_token_types": 3}, {"hidden_act": "relu", "type_vocab_size": 3}),
        (
            {"hidden_dropout": 0.1, "attention_dropout": 0.2},
            {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2},
        ),
    ],
    ids=str,
)
def test_config_says_what_the_model_is(shape: dict[str, Any], expected: dict[str, Any]) -> None:
    model = model_config(**shape)
    config = BertConfig(**hugging_face_config(model, torch.bfloat16, SpecialIds(pad=3)))
    assert {key: getattr(config, key) for key in expected} == expected
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, None, 3)
    assert config.dtype == torch.bfloat16
    assert config.max_position_embeddings == model.seq_len
    assert config.tie_word_embeddings


def test_saved_weights_are_complete_without_those_that_are_tied() -> None:
    """The head's weight and bias are tied there: they are left out of a file, and found again."""
    model = model_config()
    built = transformers.BertForPreTraining(BertConfig(**hugging_face_config(model, torch.float32, SpecialIds())))
    weights = {
        name: torch.randn(tensor.shape)
        for row in bert.parameter_table(model)
        for name, tensor in to_hugging_face(row, torch.empty(row.shape), model)
    }
    assert set(built.state_dict()) - weights.keys() == {
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
    }
    built.load_state_dict(weights, strict=False)
    decoder = built.cls.predictions.decoder
    assert torch.equal(decoder.bias, weights["cls.predictions.bias"])
    assert torch.equal(decoder.weight, weights["bert.embeddings.word_embeddings.weight"])
