"""The commands, from text files to figures."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import data_prep.cli
from data_prep.errors import DataError
from data_prep.text.sentences import library
from tests.data_sets import train_small_tokenizer


def test_text_to_data_set(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(30):
        (tmp_path / f"{i:02d}.txt").write_text(f"The text of file number {i}, which is short.\n" * 20)
    inputs, tokenizer, out = tmp_path / "*.txt", tmp_path / "tokenizer", tmp_path / "data"

    words = [
        "tokenizer",
        "train",
        "--type",
        "bpe",
        "--vocab-size",
        380,
        "--input",
        inputs,
        "--out",
        tokenizer,
        "--json",
    ]
    assert run(*words) == 0
    assert json.loads(capsys.readouterr().out)["vocab_size"] == 380

    assert run("data", "tokenize", "--input", inputs, "--tokenizer", tokenizer, "--out", out) == 0
    captured = capsys.readouterr()
    assert "documents" in captured.out
    assert "tokenize: 26.2 kB of 26.2 kB" in captured.err

    assert run("data", "stats", out, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["documents"], figures["shards"], figures["vocab_size"]) == (30, 1, 380)
    assert (
        figures["tokens_per_document_min"]
        <= figures["tokens_per_document_median"]
        <= figures["tokens_per_document_max"]
    )

    assert run("data", "verify", out) == 0
    assert "whole" in capsys.readouterr().out
    (out / "shard_00000.bin").unlink()
    for command in ("verify", "stats"):
        with pytest.raises(DataError, match=r"shard_00000\.bin is missing"):
            run("data", command, out)


def test_sentences(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("A first sentence. Then Dr. Day's one.\n" * 20)
    tokenizer = train_small_tokenizer(tmp_path / "tokenizer")
    words = ["data", "tokenize", "--input", tmp_path / "a.txt", "--tokenizer", tokenizer]
    for given, out in (([], "none"), (["--split-sentences"], "default"), (["--split-sentences", "de"], "german")):
        assert run(*words, "--out", tmp_path / out, *given, "--json") == 0
    found = [json.loads(one) for one in capsys.readouterr().out.splitlines()]
    assert [one.get("sentences") for one in found] == [None, 40, 40]
    libraries = [one["preparations"][0]["sentences"] for one in found]
    assert libraries == [None, f"en, {library()}", f"de, {library()}"]
    with pytest.raises(DataError, match="--split-sentences english is no language"):
        run(*words, "--out", tmp_path / "out", "--split-sentences", "english")


def test_missing_things_are_named(run: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match="holds no tokenizer"):
        run(
            "data", "tokenize", "--input", tmp_path / "a.txt", "--tokenizer", tmp_path / "no", "--out", tmp_path / "out"
        )
    with pytest.raises(DataError, match="matches no file"):
        run("tokenizer", "train", "--vocab-size", 400, "--input", tmp_path / "b.txt", "--out", tmp_path / "out")
    with pytest.raises(DataError, match="is not a data set"):
        run("data", "verify", tmp_path / "nowhere")


@pytest.mark.parametrize("vocab_size", ["99999999999999", "-5", "0", "many"])
def test_a_vocabulary_size_is_bounded(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], vocab_size: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("tokenizer", "train", "--vocab-size", vocab_size, "--input", "a.txt", "--out", "out")
    assert f"--vocab-size: {vocab_size} is not a whole number from 1 to 16777216" in capsys.readouterr().err


def loaded_by(code: str, names: set[str]) -> str:
    """Which of the modules `names` a new Python has loaded after `code`."""
    code = f"import sys; {code}; print(*sorted({names} & set(sys.modules)))"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def test_the_command_line_itself_imports_nothing_heavy() -> None:
    heavy = {"numpy", "sentencepiece", "tokenizers", "tqdm", "orjson", "xxhash"}
    assert loaded_by("import data_prep.cli", heavy) == ""
    assert loaded_by("import data_prep.writer", heavy) == "numpy orjson xxhash"


def test_no_module_of_data_prep_loads_torch() -> None:
    root = Path(data_prep.cli.__file__).parent
    modules = [".".join(path.relative_to(root.parent).with_suffix("").parts) for path in root.rglob("[!_]*.py")]
    assert len(modules) > 50
    assert loaded_by(f"import {', '.join(modules)}", {"torch", "transformers"}) == ""
