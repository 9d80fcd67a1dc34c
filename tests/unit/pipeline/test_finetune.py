"""Fine-tuning an exported model through transformers' Trainer."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.convert.hugging_face import load_causal_model, load_tokenizer
from pipeline.errors import DataError, UserError
from pipeline.finetune import command, finetune
from tests.small_models import make_data, make_model, sentences, write_jsonl


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_data(tmp_path_factory.mktemp("data"))
    make_model(folder, folder / "model", init_std=0.02)
    write_jsonl(folder / "new.jsonl", sentences(40, seed=5))
    write_jsonl(folder / "held_out.jsonl", sentences(10, seed=6))
    return folder


def given(work: Path) -> dict[str, Any]:
    return {"train": work / "new.jsonl", "validation": work / "held_out.jsonl"}


def test_the_loss_falls_and_the_saved_model_has_it(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    done = finetune(work / "model", **given(work), out=out, steps=12, batch_size=4, lr=2e-2)
    assert done.loss_after < done.loss_before - 0.3
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]
    assert not (out / "trainer").exists()
    assert _loss(out, work / "held_out.jsonl", seq_len=24) == pytest.approx(done.loss_after, abs=1e-4)


def test_the_best_model_is_kept_not_the_last(work: Path, tmp_path: Path) -> None:
    """A single text, learned by heart: the loss on others falls, then rises."""
    train = write_jsonl(tmp_path / "one.jsonl", sentences(1, seed=5))
    held_out, out = work / "held_out.jsonl", tmp_path / "tuned"
    done = finetune(work / "model", train=train, validation=held_out, out=out, steps=40, batch_size=1, lr=2e-2)
    assert done.best_step < 40
    assert _loss(out, held_out, seq_len=24) == pytest.approx(done.loss_after, abs=1e-4)


def _loss(folder: Path, texts: Path, *, seq_len: int) -> float:
    """Nats per token over windows of the joined texts, computed plainly."""
    model, tokenizer = load_causal_model(folder), load_tokenizer(folder)
    ids: list[int] = []
    for line in texts.read_text().splitlines():
        ids += [*tokenizer(json.loads(line)["text"])["input_ids"], tokenizer.eos_token_id]
    total, count = 0.0, 0
    for start in range(0, len(ids) - seq_len + 1, seq_len):
        window = torch.tensor([ids[start : start + seq_len]])
        with torch.no_grad():
            predictions = model(window).logits[0].log_softmax(-1)
        for position in range(seq_len - 1):
            total -= float(predictions[position, window[0, position + 1]])
            count += 1
    return total / count


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"words": "b"}\n', r"texts\.jsonl:2, byte 14: missing key: no field 'text'"),
        ('{"text": "a"}\n{"text": \n', r"texts\.jsonl:2, byte 14: malformed json"),
        ("", r"texts\.jsonl holds 0 tokens of text, less than one window of 24"),
        ('{"text": "the cat"}\n', "Give more text, or a shorter --seq-len"),
    ],
)
def test_bad_texts_are_named(work: Path, tmp_path: Path, content: str, message: str) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text(content)
    with pytest.raises(DataError, match=message):
        finetune(work / "model", train=texts, validation=work / "held_out.jsonl", out=tmp_path / "tuned")
    assert [path.name for path in tmp_path.iterdir()] == ["texts.jsonl"]


def test_wrong_arguments_are_named(work: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent is not a folder"):
        finetune(work / "absent", **given(work), out=tmp_path / "tuned")
    with pytest.raises(UserError, match=r"train is not a Hugging Face folder: it has no config\.json"):
        finetune(work / "train", **given(work), out=tmp_path / "tuned")
    with pytest.raises(UserError, match=r"--seq-len 25 cannot be used: the model was trained on 24 positions"):
        finetune(work / "model", **given(work), out=tmp_path / "tuned", seq_len=25)
    with pytest.raises(DataError, match="exists already"):
        finetune(work / "model", **given(work), out=work)
    with pytest.raises(DataError, match=r"absent\.jsonl cannot be read"):
        finetune(work / "model", train=work / "absent.jsonl", validation=work / "new.jsonl", out=tmp_path / "tuned")


def test_special_tokens_in_a_text_are_plain_text(work: Path, tmp_path: Path) -> None:
    from pipeline.finetune import _encoded

    texts = write_jsonl(tmp_path / "texts.jsonl", ["a <|eos|> b"])
    tokenizer = load_tokenizer(work / "model")
    [ids] = _encoded(texts, tokenizer, "text")
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id


def test_command_prints_json_alone(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"steps": 1, "batch_size": 2, "lr": 1e-3, "seq_len": 16, "seed": 1, "text_key": "content", "json": True}
    paths = {}
    for name, path in given(work).items():
        paths[name] = str(tmp_path / f"{name}.jsonl")
        Path(paths[name]).write_text(path.read_text().replace('"text"', '"content"'))
    args = argparse.Namespace(model=str(work / "model"), out=str(tmp_path / "tuned"), **paths, **options)
    assert command(args) == 0
    assert json.loads(capsys.readouterr().out)["best_step"] == 1
