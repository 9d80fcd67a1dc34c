"""What `pretrain data preview` shows of each objective, in words that a person can compare with the text."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.manifest import FILE_NAME as MANIFEST
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizing.job import TokenizeConfig
from data_prep.tokenizing.tokenize import tokenize
from pipeline import cli
from tests.small_models import sentences, write_jsonl
from tests.unit.pipeline.config.sections import sections

TEXTS = sentences(60, seed=3)


@pytest.fixture(scope="module")
def run_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("preview")
    train_tokenizer(iter(TEXTS), kind="unigram", vocab_size=500, out=work / "tokenizer", objectives=["all"])
    for name, texts, language in (("train", TEXTS[:50], None), ("held_out", TEXTS[50:], None), ("pairs", TEXTS, "en")):
        paired = [" ".join(texts[at : at + 4]) for at in range(0, len(texts), 4)] if language else texts
        source = write_jsonl(work / f"{name}.jsonl", paired)
        config = TokenizeConfig(split_sentences=language)
        tokenize(inputs=[source], tokenizer=work / "tokenizer", out=work / name, config=config)
    made = sections({"data.train": str(work / "train"), "data.validation": str(work / "held_out"), "model.seq_len": 64})
    del made["model"]["vocab_size"]
    path = work / "run.yaml"
    path.write_text(yaml.safe_dump(made))
    return path


def shown(capsys: pytest.CaptureFixture[str], run_yaml: Path, *words: str) -> str:
    assert cli.main(["data", "preview", str(run_yaml), *words]) == 0
    return capsys.readouterr().out


def test_a_causal_sample_is_its_text(run_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, run_yaml, "--count", "2")
    heading, text, empty, second = out.splitlines()[:4]
    assert re.fullmatch(r"sample 0, source .*/train, epoch 0, id \d+, tokens 64, predicted 64", heading)
    assert second.startswith("sample 1, ")
    assert not empty
    assert all(piece.strip(" .") in "\n".join(TEXTS) for piece in text.split("<|eos|>"))


def test_documents_are_told_apart_where_the_model_tells_them_apart(
    run_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(capsys, run_yaml, "data.attend_within_documents=true", "--count", "4")
    assert out.count("<|eos|> ┃ ") == sum(int(found) - 1 for found in re.findall(r"documents (\d+)", out)) > 0


def test_masked_tokens_are_shown_with_what_is_right(run_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, run_yaml, "objective.name=masked", "objective.masking=whole_word", "--count", "4")
    restored = re.sub(r"⟦(?:[^⟧]*: )?([^⟧:]*)⟧", r"\1", out)
    assert "⟦<|mask|>: " in out
    for line in restored.splitlines()[1::3]:
        for piece in re.split(r"<\|\w+\|>", line):
            assert piece.strip(" .") in "\n".join(TEXTS)


def test_the_segments_of_a_pair_are_apart(run_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"data.train={run_yaml.parent / 'pairs'}"
    pairs = ("objective.name=masked", "objective.pairs=nsp", "data.validation=null")
    out = shown(capsys, run_yaml, data, *pairs, "--count", "8")
    assert out.count("<|sep|> ┃ ") == 8
    assert {"next_sentence_label 0", "next_sentence_label 1"} == set(re.findall(r"next_sentence_label \d", out))


def test_spans_stand_where_their_sentinels_are(run_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, run_yaml, "objective.name=span", "--count", "2")
    encoder, decoder = re.findall(r"(?m)^(?:encoder|decoder) (.*)$", out)[:2]
    spans = dict(re.findall(r"(<extra_id_\d+>)(.*?)(?=<extra_id_|<\|eos\|>$)", decoder))
    whole = re.sub(r"<extra_id_\d+>", lambda found: spans[found[0]], encoder.removesuffix("<|eos|>"))
    assert all(piece.strip(" .") in "\n".join(TEXTS) for piece in whole.split("<|eos|>"))


def test_as_json_a_sample_is_what_the_model_gets(run_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, run_yaml, "--json", "--position", "7").splitlines()
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert [one["sample"] for one in found] == [7, 8, 9]
    assert all(len(one["input_ids"]) == len(one["labels"]) == 64 for one in found)


def test_held_out_samples_are_shown_in_their_order(run_yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, run_yaml, "--validation", "--count", "1")
    assert out.splitlines()[1].startswith(TEXTS[50][:40])
    assert cli.main(["data", "preview", str(run_yaml), "--validation", "--position", "100000"]) == 1
    assert "--position=100000 is wrong because data.validation has" in capsys.readouterr().err
    assert cli.main(["data", "preview", str(run_yaml), "--validation", "data.validation=null"]) == 1
    assert "data.validation is not set" in capsys.readouterr().err


def test_without_a_tokenizer_the_ids_are_shown(
    run_yaml: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for file in (run_yaml.parent / "train").glob("shard_*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert not (tmp_path / MANIFEST).exists()
    out = shown(
        capsys, run_yaml, f"data.train={tmp_path}", "data.validation=null", "model.vocab_size=500", "--count", "1"
    )
    assert re.fullmatch(r"( \d+){64}", out.splitlines()[1])
