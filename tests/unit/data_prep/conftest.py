"""A small real tokenizer of each kind, trained once on text that every Python has."""

import argparse
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from data_prep.cli import add_commands
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer

TEXTS = [text for _, text in sorted(topics.items())][:40]


@pytest.fixture(scope="session", params=["unigram", "bpe"])
def any_tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    out = tmp_path_factory.mktemp("tokenizer") / request.param
    return train_tokenizer(TEXTS, kind=request.param, vocab_size=700, out=out)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer(TEXTS, kind="bpe", vocab_size=500, out=tmp_path_factory.mktemp("tokenizer") / "bpe")


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Writes lines, as bytes, to a .jsonl."""

    def write(*lines: bytes, name: str = "input.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def run() -> Callable[..., int]:
    """Runs a command of `pretrain tokenizer` or `pretrain data`."""

    def run_command(*words: object) -> int:
        parser = argparse.ArgumentParser("pretrain")
        add_commands(parser.add_subparsers(required=True))
        args = parser.parse_args([str(word) for word in words])
        code: int = args.run(args)
        return code

    return run_command
