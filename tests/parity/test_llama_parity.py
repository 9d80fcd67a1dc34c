"""Each export of a decoder computes, in transformers, the logits of the training model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config.schema import Dtype
from pipeline.convert import llama_form, parity
from pipeline.convert.export import TORCH_DTYPES, export
from pipeline.convert.hugging_face import load_causal_model
from pipeline.errors import CheckpointError
from tests.small_models import FakeCheckpoint, make_data, run_config

SHAPES: dict[str, dict[str, Any]] = {
    "multi_head": {},
    "grouped_query": {"num_key_value_heads": 2},
    "one_key_value_head": {"num_key_value_heads": 1},
    "tied": {"tie_embeddings": True, "num_key_value_heads": 2},
    "odd_vocabulary": {"vocab_size": 451},
    "odd_vocabulary_tied": {"vocab_size": 451, "tie_embeddings": True},
    "one_layer": {"num_layers": 1},
    "wide_heads": {"head_dim": 12, "num_key_value_heads": 2},
    "rope_and_epsilon": {"rope_theta": 500.0, "norm_epsilon": 1e-2},
    "llama3": {"rope_scaling": "llama3", "rope_factor": 4.0, "rope_original_seq_len": 12, "rope_theta": 100.0},
    "linear": {"rope_scaling": "linear", "rope_factor": 4.0},
    "qwen2": {"architecture": "qwen2", "num_key_value_heads": 2, "tie_embeddings": True},
    "qwen3": {"architecture": "qwen3", "num_key_value_heads": 2, "head_dim": 12},
    "mistral": {"architecture": "mistral", "num_key_value_heads": 2},
    "mistral_window": {"architecture": "mistral", "num_key_value_heads": 2, "sliding_window": 7},
    "gpt2": {"architecture": "gpt2"},
    "gpt2_untied": {"architecture": "gpt2", "tie_embeddings": False, "vocab_size": 451, "activation": "gelu"},
}
EACH_CLASS = ("grouped_query", "qwen2", "qwen3", "mistral_window", "gpt2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_logits_are_equal(data: Path, tmp_path: Path, shape: dict[str, Any], dtype: Dtype) -> None:
    checkpoint = FakeCheckpoint(run_config(data, **shape)).logical
    report = export(checkpoint, tmp_path / "model", dtype=dtype)
    assert report.parity is not None
    assert report.parity.max_difference <= 1e-4
    assert report.parity.tokens.startswith("the first tokens of data.validation")
    logits = parity.training_logits(checkpoint, parity._windows(checkpoint)[0][:1], dtype=TORCH_DTYPES[dtype])
    assert logits[0].std() > 0.1  # large enough that a wrong model could not hide below the tolerance
    assert logits[0].shape == (24, checkpoint.config.model.vocab_size)


@pytest.mark.parametrize("name", EACH_CLASS)
def test_dropout_is_in_the_config_and_off_in_the_proof(data: Path, tmp_path: Path, name: str) -> None:
    config = run_config(data, **SHAPES[name], hidden_dropout=0.2, attention_dropout=0.2)
    report = export(FakeCheckpoint(config).logical, tmp_path / "model", dtype="fp32")
    assert report.parity is not None
    content = json.loads((tmp_path / "model" / "config.json").read_text())
    assert content["attn_pdrop" if name == "gpt2" else "attention_dropout"] == 0.2


@pytest.mark.parametrize("name", EACH_CLASS)
def test_generation_with_a_cache_goes_on_as_without_one(data: Path, tmp_path: Path, name: str) -> None:
    """What the proof does not run: keys kept from token to token, beyond the window, too."""
    export(FakeCheckpoint(run_config(data, **SHAPES[name])).logical, tmp_path / "model", dtype="fp32")
    model = load_causal_model(tmp_path / "model")
    ids = torch.arange(1, 7)[None]
    options: dict[str, Any] = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with_cache, without = (model.generate(ids, **options, use_cache=cached) for cached in (True, False))
    assert with_cache.shape == (1, 22)
    assert torch.equal(with_cache, without)


def test_one_wrong_weight_is_found(data: Path, tmp_path: Path) -> None:
    checkpoint = FakeCheckpoint(run_config(data, num_key_value_heads=2)).logical
    export(checkpoint, tmp_path / "model", dtype="fp32")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.self_attn.k_proj.weight"][3, 5] += 0.05
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"logits differ by .* worst at window \d+, position \d+, vocabulary id \d+"
    ):
        parity.prove(checkpoint, tmp_path / "model", dtype=torch.float32)


@pytest.mark.parametrize(
    ("part", "swapped"),
    [
        ("mlp.linear_fc1", ("mlp.up_proj", "mlp.gate_proj")),
        ("input_norm", ("post_attention_layernorm",)),
    ],
)
def test_a_wrong_mapping_is_refused_and_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, swapped: tuple[str, ...]
) -> None:
    back = {} if len(swapped) > 1 else {"post_attention_norm": ("input_layernorm",)}
    monkeypatch.setattr(llama_form, "LAYER_PARTS", {**llama_form.LAYER_PARTS, part: swapped, **back})
    with pytest.raises(CheckpointError, match="logits differ"):
        export(FakeCheckpoint(run_config(data)).logical, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_without_held_out_data_random_ids_are_used(data: Path, tmp_path: Path) -> None:
    config = run_config(data)
    config = config.model_copy(update={"data": config.data.model_copy(update={"validation": None})})
    report = export(FakeCheckpoint(config).logical, tmp_path / "model")
    assert report.parity is not None
    assert report.parity.tokens == "random token ids, as data.validation is not set"
    assert report.parity.num_tokens == 2048 // 24 * 24
