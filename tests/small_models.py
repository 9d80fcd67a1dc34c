"""Small stand-ins for what training leaves on the disk: a tokenizer, two data sets, a checkpoint."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizing.tokenize import tokenize
from pipeline.config.load import build
from pipeline.config.schema import RunConfig
from pipeline.convert.export import export
from pipeline.models.families import parameter_table
from pipeline.models.parameters import ParameterTable

if TYPE_CHECKING:
    from pipeline.checkpoint.logical import LogicalCheckpoint

WORDS = (
    *("the", "cat", "sat", "on", "a", "mat", "while", "seven", "wise", "men", "counted"),
    *("all", "of", "their", "sheep", "and", "then", "went", "home", "to", "sleep"),
)
VOCAB_SIZE = 390


def sentences(count: int, *, seed: int) -> list[str]:
    """Text with some structure: each word is followed by one of three."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for _ in range(count):
        index, words = int(torch.randint(len(WORDS), (), generator=generator)), []
        for step in torch.randint(1, 4, (40,), generator=generator).tolist():
            words.append(WORDS[index])
            index = (index + step) % len(WORDS)
        texts.append(" ".join(words) + ".")
    return texts


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def make_data(folder: Path, *, vocab_size: int = VOCAB_SIZE) -> Path:
    """`folder` with a tokenizer of `vocab_size` ids in tokenizer/ and the data sets train/ and validation/."""
    tokenizer = folder / "tokenizer"
    train_tokenizer(sentences(200, seed=0), kind="unigram", vocab_size=vocab_size, out=tokenizer)
    for name, count, seed in (("train", 60, 1), ("validation", 20, 2)):
        source = write_jsonl(folder / f"{name}.jsonl", sentences(count, seed=seed))
        tokenize(inputs=[source], tokenizer=tokenizer, out=folder / name)
    return folder


def run_config(data: Path | None = None, **model: Any) -> RunConfig:
    """A config of a small model; its data sets are those that `make_data(data)` made."""
    shape = {
        "vocab_size": VOCAB_SIZE,
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "ffn_hidden_size": 48,
        "seq_len": 24,
        "init_std": 0.15,
    }
    sets = {"train": str(data / "train"), "validation": str(data / "validation")} if data else {"train": "absent"}
    return build(
        {
            "run": {"dir": "run", "steps": 10},
            "model": shape | model,
            "objective": _objective(model),
            "data": sets,
            "batch": {"micro_batch_size": 2, "global_batch_size": 2},
            "optimizer": {"lr": 1e-3},
            "precision": {"dtype": "bf16"},
        },
        check_data=False,
    )


def _objective(model: dict[str, Any]) -> dict[str, str]:
    """What a model of this kind is trained on."""
    if model.get("architecture") == "bert":
        return {"name": "masked", "pairs": "nsp" if model.get("pair_head") else "none"}
    return {"name": "span" if model.get("architecture") == "t5" else "causal"}


class FakeCheckpoint:
    """A checkpoint of initial weights with the interface of `LogicalCheckpoint`; no two norms are equal."""

    def __init__(self, config: RunConfig) -> None:
        self.path = Path("run/checkpoints/step_0000010")
        self.config = config
        self.step = 10
        self.consumed_samples = 20
        self.table = parameter_table(config.model)
        self.values = {row.name: row.initial_value(config.run.seed) for row in self.table}
        generator = torch.Generator().manual_seed(7)
        for row in self.table:
            if row.init_std is None:
                self.values[row.name] += 0.3 * torch.randn(row.shape, generator=generator)

    def read(self, name: str) -> torch.Tensor:
        return self.values[name]

    def without(self, name: str) -> "FakeCheckpoint":
        self.table = ParameterTable(row for row in self.table if row.name != name)
        return self

    @property
    def logical(self) -> "LogicalCheckpoint":
        return cast("LogicalCheckpoint", self)


def make_model(data: Path, out: Path, **model: Any) -> Path:
    """A Hugging Face folder `out` of an untrained model; `data` is from `make_data`."""
    export(FakeCheckpoint(run_config(data, **model)).logical, out, verify=False)
    return out
