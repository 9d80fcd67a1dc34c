"""Continuing a text with an exported model."""

import argparse
import json
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.generate import command, generate
from tests.small_models import make_data, make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_data(tmp_path_factory.mktemp("data"))
    return make_model(folder, folder / "model")


def test_the_prompt_is_continued(model: Path) -> None:
    drawn = {generate(model, "the cat", max_new_tokens=8, temperature=1.0, seed=seed) for seed in (1, 1, 2, 3)}
    assert all(text.startswith("the cat") for text in drawn)
    assert 2 <= len(drawn) <= 3  # a seed gives its text again, another one another


def test_temperature_0_does_not_depend_on_the_seed(model: Path) -> None:
    assert len({generate(model, "the cat", max_new_tokens=8, temperature=0, seed=seed) for seed in (1, 2, 3)}) == 1


@pytest.mark.parametrize(
    ("prompt", "max_new_tokens", "message"),
    [
        ("", 4, "the prompt is empty"),
        ("the cat", 24, r"the prompt has \d+ tokens and the model was trained on 24 positions\. Ask for \d+ or fewer"),
        ("the cat sat on " * 20, 4, r"Shorten the prompt"),
        ("the cat", 0, "give 1 or more tokens"),
        ("the \udcff cat", 4, "the prompt is not valid UTF-8 at character 5"),
    ],
)
def test_what_cannot_be_done_is_said(model: Path, prompt: str, max_new_tokens: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate(model, prompt, max_new_tokens=max_new_tokens)


@pytest.mark.parametrize("temperature", [-1, 1e-40, float("nan")])
def test_a_temperature_is_0_or_can_be_divided_by(model: Path, temperature: float) -> None:
    with pytest.raises(UserError, match=r"a temperature of 0, or of 0\.01 or more"):
        generate(model, "the cat", temperature=temperature)
    assert generate(model, "the cat", max_new_tokens=4, temperature=0.01).startswith("the cat")


def test_damaged_folders_are_named(model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in model.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    weights = (model / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(UserError, match="damaged cannot be loaded as a language model"):
        generate(damaged, "the cat", max_new_tokens=2)
    (damaged / "model.safetensors").write_bytes(weights)
    config = json.loads((model / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"not those of its config\.json \(missing keys: model\.layers\.2\."):
        generate(damaged, "the cat", max_new_tokens=2)
    (damaged / "config.json").write_text(json.dumps(config))
    (damaged / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="damaged holds no tokenizer that transformers can load"):
        generate(damaged, "the cat", max_new_tokens=2)


def test_command_prints_json_alone(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(model=str(model), prompt="the cat", max_new_tokens=3, temperature=0.5, seed=0, json=True)
    assert command(args) == 0
    assert json.loads(capsys.readouterr().out)["text"].startswith("the cat")
