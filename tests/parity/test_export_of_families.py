"""Each family is exported as a class of transformers that computes what training does, and generates as it says."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from pipeline.convert.export import export
from tests.small_models import FakeCheckpoint, make_data, run_config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("shape", "class_name"),
    [
        ({"architecture": "bert", "pair_head": True}, "BertForPreTraining"),
        ({"architecture": "bert"}, "BertForMaskedLM"),
        ({"architecture": "t5", "num_decoder_layers": 1}, "T5ForConditionalGeneration"),
        ({"architecture": "t5", "tie_embeddings": True, "gated_mlp": False}, "T5ForConditionalGeneration"),
    ],
    ids=str,
)
def test_encoders_and_encoder_decoders(data: Path, tmp_path: Path, shape: dict[str, object], class_name: str) -> None:
    report = export(FakeCheckpoint(run_config(data, **shape)).logical, tmp_path / "model", dtype="fp32")
    assert report.parity is not None
    assert report.parity.max_difference <= 1e-4
    assert json.loads((tmp_path / "model" / "config.json").read_text())["architectures"] == [class_name]
    assert class_name in (tmp_path / "model" / "README.md").read_text()


def test_a_decoder_behind_an_encoder_starts_with_its_own_token(data: Path, tmp_path: Path) -> None:
    export(FakeCheckpoint(run_config(data, architecture="t5")).logical, tmp_path / "model", dtype="fp32")
    model = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "model")
    ids = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False)
    assert int(ids[0, 0]) == model.config.decoder_start_token_id == model.generation_config.decoder_start_token_id
