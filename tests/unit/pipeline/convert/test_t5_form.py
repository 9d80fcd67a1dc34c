"""The mapping of parameters and config to Hugging Face's T5, against plain loops and transformers' own class."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration
from transformers.activations import ACT2FN

from pipeline.config.architectures import Activation
from pipeline.config.schema import ModelConfig
from pipeline.convert.hugging_face import load_model
from pipeline.convert.special_ids import SpecialIds
from pipeline.convert.t5_form import hugging_face_config, to_hugging_face
from pipeline.distributed import single_process
from pipeline.models import t5
from pipeline.models.transformer_config import ACTIVATIONS
from tests.parity.same_model import named, ours
from tests.small_t5 import ORIGINAL, VOCAB_SIZE, model_config

ACTIVATION_NAMES = get_args(Activation)

models = st.builds(
    model_config,
    num_layers=st.integers(1, 3),
    num_decoder_layers=st.integers(1, 3),
    hidden_size=st.integers(4, 20),
    num_attention_heads=st.integers(1, 4),
    head_dim=st.integers(1, 6),
    ffn_hidden_size=st.integers(1, 9),
    vocab_size=st.integers(1, 300),
    num_relative_buckets=st.integers(4, 40),
    tie_embeddings=st.booleans(),
    gated_mlp=st.booleans(),
    activation=st.sampled_from(ACTIVATION_NAMES),
)


def config_of(model: ModelConfig) -> T5Config:
    return T5Config(**hugging_face_config(model, torch.float32, SpecialIds()))


@settings(max_examples=25)
@given(models)
def test_names_and_shapes_are_those_of_transformers(model: ModelConfig) -> None:
    """Its class ties the output layer always, which is then one of its parameters under another name."""
    with torch.device("meta"):
        built = T5ForConditionalGeneration(config_of(model))
    theirs = {name: parameter.shape for name, parameter in built.named_parameters()}
    if not model.tie_embeddings:
        theirs["lm_head.weight"] = built.lm_head.weight.shape
    found = {
        name: tensor.shape
        for row in t5.parameter_table(model)
        for name, tensor in to_hugging_face(row, torch.empty(row.shape, device="meta"), model)
    }
    assert found == theirs


@pytest.mark.parametrize(
    ("local_name", "parts"),
    [("self_attention.linear_qkv.weight", ("q", "k", "v")), ("cross_attention.linear_kv.weight", ("k", "v"))],
)
@settings(max_examples=15)
@given(model=models)
def test_fused_rows_go_where_a_plain_loop_puts_them(
    model: ModelConfig, local_name: str, parts: tuple[str, ...]
) -> None:
    row = [row for row in t5.parameter_table(model) if row.local_name == local_name][-1]
    fused = torch.arange(row.numel).view(row.shape)
    found = {name.split(".")[-2]: tensor for name, tensor in to_hugging_face(row, fused, model)}
    assert tuple(found) == parts
    taken = 0
    for head in range(model.num_attention_heads):
        for part in parts:
            mine = found[part][head * model.head_dim : (head + 1) * model.head_dim]
            assert torch.equal(mine, fused[taken : taken + model.head_dim])
            taken += model.head_dim
    assert taken == row.shape[0] == sum(len(part) for part in found.values())


def test_the_gate_is_the_first_half_of_fc1() -> None:
    model = model_config()
    [row] = [row for row in t5.parameter_table(model) if row.name == "decoder.1.mlp.linear_fc1.weight"]
    fused = torch.randn(row.shape)
    found = dict(to_hugging_face(row, fused, model))
    assert torch.equal(found["decoder.block.1.layer.2.DenseReluDense.wi_0.weight"], fused[: model.ffn_hidden_size])
    assert torch.equal(found["decoder.block.1.layer.2.DenseReluDense.wi_1.weight"], fused[model.ffn_hidden_size :])


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("activation", ACTIVATION_NAMES)
def test_every_activation_has_its_function_there(activation: Activation, gated: bool) -> None:
    config = config_of(model_config(activation=activation, gated_mlp=gated))
    assert config.is_gated_act == gated
    points = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    torch.testing.assert_close(ACT2FN[config.dense_act_fn](points), ACTIVATIONS[activation](points), atol=1e-12, rtol=0)
    if activation.startswith("gelu"):
        other = ACTIVATIONS["gelu" if activation == "gelu_tanh" else "gelu_tanh"]
        assert (ACT2FN[config.dense_act_fn](points) - other(points)).abs().max() > 1e-4


def test_published_models_have_the_names_of_their_feed_forward_layers() -> None:
    assert config_of(model_config()).feed_forward_proj == "gated-gelu"
    assert config_of(model_config(**ORIGINAL)).feed_forward_proj == "relu"


def test_config_says_what_the_model_is() -> None:
    model = model_config(
        num_decoder_layers=5,
        head_dim=12,
        hidden_dropout=0.1,
        init_std=0.5,
        norm_epsilon=1e-5,
        num_relative_buckets=20,
        max_relative_distance=40,
    )
    config = T5Config(**hugging_face_config(model, torch.bfloat16, SpecialIds(eos=1, pad=3)))
    assert (config.num_layers, config.num_decoder_layers, config.d_model, config.d_ff) == (2, 5, 32, 48)
    assert (config.num_heads, config.d_kv, config.vocab_size) == (4, 12, VOCAB_SIZE)
    assert (config.relative_attention_num_buckets, config.relative_attention_max_distance) == (20, 40)
    assert (config.dropout_rate, config.initializer_factor, config.layer_norm_epsilon) == (0.1, 0.5, 1e-5)
    assert (config.decoder_start_token_id, config.pad_token_id, config.eos_token_id) == (3, 3, 1)
    assert config.dtype == torch.bfloat16
    assert config.is_encoder_decoder


def folder_of(path: Path, model: ModelConfig, weights: dict[str, torch.Tensor], **changes: Any) -> Path:
    path.mkdir()
    content = hugging_face_config(model, torch.float32, SpecialIds(eos=1, pad=0)) | changes
    (path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    save_file({name: weight.contiguous() for name, weight in weights.items()}, path / "model.safetensors")
    return path


@pytest.mark.parametrize("shape", [{}, dict(ORIGINAL)], ids=["untied", "tied"])
def test_a_folder_is_loaded_with_the_output_layer_that_it_has(tmp_path: Path, shape: dict[str, Any]) -> None:
    """Transformers 5 forces `tie_word_embeddings`, and reads from it whether the decoder's output is scaled."""
    model = model_config(**shape)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCAB_SIZE, (2, 11), generator=generator)
    mask = torch.ones_like(ids)
    with single_process(), torch.no_grad():
        stack = ours(model)
        expected = stack((ids, mask, ids[:, :7]))[..., :VOCAB_SIZE].transpose(0, 1)
        weights = named(model, stack, of="weights")
    loaded = load_model(folder_of(tmp_path / "model", model, weights), T5ForConditionalGeneration)
    assert (loaded.lm_head.weight is loaded.shared.weight) == model.tie_embeddings
    with torch.no_grad():
        found = loaded(input_ids=ids, attention_mask=mask, decoder_input_ids=ids[:, :7]).logits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        wrong = folder_of(tmp_path / "wrong", model, weights, tie_word_embeddings=not model.tie_embeddings)
        scaled = load_model(wrong, T5ForConditionalGeneration)(
            input_ids=ids, attention_mask=mask, decoder_input_ids=ids[:, :7]
        ).logits
    assert (scaled - expected).abs().max() > 0.1
