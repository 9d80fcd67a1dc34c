"""What an export writes, what it refuses, and that a refused one leaves nothing."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from data_prep.tokenizer import loading
from pipeline.convert import export as export_module
from pipeline.convert.export import export
from pipeline.errors import CheckpointError, DataError
from tests.small_models import VOCAB_SIZE, FakeCheckpoint, make_data, run_config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def checkpoint(data: Path) -> FakeCheckpoint:
    return FakeCheckpoint(run_config(data, num_key_value_heads=2))


def test_the_folder_is_whole(checkpoint: FakeCheckpoint, tmp_path: Path) -> None:
    out = tmp_path / "model"
    report = export(checkpoint.logical, out)
    content = json.loads((out / "export.json").read_text())
    assert report.dtype == content["dtype"] == checkpoint.config.precision.dtype == "bf16"
    assert content["step"] == 10
    assert content["parity"]["max_difference"] <= content["parity"]["tolerance"] == 1e-4
    assert content["files"].keys() == {path.name for path in out.iterdir()} - {"export.json"}
    assert all(
        hashlib.sha256((out / name).read_bytes()).hexdigest() == known for name, known in content["files"].items()
    )
    card = (out / "README.md").read_text()
    assert f"{checkpoint.table.num_parameters:,}" in card
    assert "10 steps, 480 tokens" in card
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_weights_are_the_master_weights_rounded_once(
    checkpoint: FakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(export_module, "PIECE_ELEMENTS", 100)
    export(checkpoint.logical, tmp_path / "model", dtype=dtype, verify=False)  # type: ignore[arg-type]
    found = load_file(tmp_path / "model" / "model.safetensors")
    torch_dtype = export_module.TORCH_DTYPES[dtype]
    assert torch.equal(found["lm_head.weight"], checkpoint.values["head.output_layer.weight"].to(torch_dtype))
    assert json.loads((tmp_path / "model" / "export.json").read_text())["parity"] is None


def test_auto_tokenizer_loads_the_folder_and_gives_the_same_ids(
    checkpoint: FakeCheckpoint, data: Path, tmp_path: Path
) -> None:
    export(checkpoint.logical, tmp_path / "model", verify=False)
    text = "the wise cat  counted\n7 sheep: naïve!"
    found = AutoTokenizer.from_pretrained(tmp_path / "model")
    [expected] = loading.load(data / "tokenizer").encode_batch([text])
    assert found(text)["input_ids"] == expected.tolist()
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (
        config["bos_token_id"],
        config["eos_token_id"],
        config["pad_token_id"],
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(checkpoint: FakeCheckpoint, tmp_path: Path, value: float) -> None:
    checkpoint.values["layers.1.mlp.linear_fc2.weight"][3, 4] = value
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.linear_fc2\.weight holds values that are not finite"):
        export(checkpoint.logical, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_value_too_large_for_fp16_is_refused(checkpoint: FakeCheckpoint, tmp_path: Path) -> None:
    checkpoint.values["final.norm.weight"][0] = 1e5
    with pytest.raises(CheckpointError, match=r"final\.norm\.weight holds 1e\+05, above the largest float16 \(65504\)"):
        export(checkpoint.logical, tmp_path / "model", dtype="fp16")


def test_a_missing_parameter_is_named(checkpoint: FakeCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing: layers\.0\.input_norm\.weight"):
        export(checkpoint.without("layers.0.input_norm.weight").logical, tmp_path / "model")


def test_an_unknown_parameter_is_named(data: Path, tmp_path: Path) -> None:
    deeper, config = FakeCheckpoint(run_config(data, num_layers=3)), run_config(data)
    deeper.config = config
    with pytest.raises(CheckpointError, match=r"unknown: layers\.2\."):
        export(deeper.logical, tmp_path / "model")


def test_a_parameter_of_another_shape_is_named(checkpoint: FakeCheckpoint, tmp_path: Path) -> None:
    checkpoint.values["final.norm.weight"] = torch.ones(33)
    with pytest.raises(CheckpointError, match=r"final\.norm\.weight has shape \(33,\), not \(32,\)"):
        export(checkpoint.logical, tmp_path / "model")


def test_an_occupied_folder_is_left_alone(checkpoint: FakeCheckpoint, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        export(checkpoint.logical, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_interrupted_export_leaves_nothing(
    checkpoint: FakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, names = checkpoint.read, []

    def interrupted(name: str) -> torch.Tensor:
        names.append(name)
        if len(names) == 5:
            raise KeyboardInterrupt
        return read(name)

    monkeypatch.setattr(checkpoint, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint.logical, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tokenizer_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give --tokenizer DIR"):
        export(FakeCheckpoint(run_config()).logical, tmp_path / "model")
    with pytest.raises(DataError, match=r"tokenizer\.json, tokenizer_config\.json missing"):
        export(FakeCheckpoint(run_config()).logical, tmp_path / "model", tokenizer=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_can_be_given(data: Path, tmp_path: Path) -> None:
    export(FakeCheckpoint(run_config()).logical, tmp_path / "model", tokenizer=data / "tokenizer", verify=False)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").vocab_size == VOCAB_SIZE


def test_another_tokenizer_is_refused(data: Path, tmp_path: Path) -> None:
    other = make_data(tmp_path / "other", vocab_size=VOCAB_SIZE - 5) / "tokenizer"
    with pytest.raises(DataError, match=r"is not the one that made .*/train"):
        export(FakeCheckpoint(run_config(data)).logical, tmp_path / "model", tokenizer=other)
    small = FakeCheckpoint(run_config(vocab_size=100)).logical
    with pytest.raises(DataError, match=f"has {VOCAB_SIZE} ids but the model knows 100"):
        export(small, tmp_path / "model", tokenizer=data / "tokenizer")
