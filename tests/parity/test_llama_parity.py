"""Each export computes, in transformers, the logits of the training model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config.schema import Dtype
from pipeline.convert import llama, parity
from pipeline.convert.export import TORCH_DTYPES, export
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
}


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
        ("mlp.linear_fc1.weight", ("mlp.up_proj", "mlp.gate_proj")),
        ("input_norm.weight", ("post_attention_layernorm",)),
    ],
)
def test_a_wrong_mapping_is_refused_and_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, swapped: tuple[str, ...]
) -> None:
    back = {} if len(swapped) > 1 else {"post_attention_norm.weight": ("input_layernorm",)}
    monkeypatch.setattr(llama, "LAYER_PARTS", {**llama.LAYER_PARTS, part: swapped, **back})
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
