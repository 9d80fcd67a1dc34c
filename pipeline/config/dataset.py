"""What a run config and the data sets that it names must agree on."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from data_prep.manifest import Manifest, load_manifest
from pipeline.config.problems import Problem, wrong
from pipeline.config.schema import RunConfig
from pipeline.errors import DataError


def read(data: Any) -> dict[str, Manifest | DataError]:
    """The manifest behind each data set that the `data` section names, or why it cannot be had."""
    found: dict[str, Manifest | DataError] = {}
    for name in ("train", "validation"):
        folder = data.get(name) if isinstance(data, dict) else None
        if isinstance(folder, str) and folder:
            try:
                found[name] = load_manifest(Path(folder))
            except DataError as error:
                found[name] = error
    return found


def with_vocab_size(model: Any, found: Mapping[str, Manifest | DataError]) -> Any:
    """The `model` section with the training data's vocabulary size where it has none.

    Without training data it is 1: that data.train is wrong is then the one problem to report.
    """
    if not isinstance(model, dict) or model.get("vocab_size") is not None:
        return model
    train = found.get("train")
    return model | {"vocab_size": train.vocab_size if isinstance(train, Manifest) else 1}


def problems(
    config: RunConfig, found: Mapping[str, Manifest | DataError], unusable: AbstractSet[str] = frozenset()
) -> Iterator[Problem]:
    """What is wrong with the data sets in themselves, with each other, and for this model."""
    train, validation = found.get("train"), found.get("validation")
    vocab_is_known = not isinstance(train, DataError) and "model.vocab_size" not in unusable
    for name, manifest in found.items():
        key, folder = f"data.{name}", getattr(config.data, name)
        if isinstance(manifest, DataError):
            yield Problem(text=f"{key}={folder} is wrong because {manifest}", keys=frozenset({key}))
            continue
        vocab_size, seq_len = config.model.vocab_size, config.model.seq_len
        if vocab_is_known and vocab_size < manifest.vocab_size:
            because = f"{key} holds ids up to {manifest.vocab_size - 1}"
            yield wrong("model.vocab_size", vocab_size, because, f"set it to {manifest.vocab_size} or leave it out")
        if "model.seq_len" not in unusable and manifest.num_tokens <= seq_len:
            because = (
                f"its {manifest.num_tokens} tokens do not fill one sample of model.seq_len={seq_len} and its target"
            )
            yield wrong(key, folder, because, "give more text, or lower model.seq_len")
    if (
        isinstance(train, Manifest)
        and isinstance(validation, Manifest)
        and train.tokenizer.sha256 != validation.tokenizer.sha256
    ):
        because = f"its tokenizer is not the one of data.train={config.data.train}"
        yield wrong("data.validation", config.data.validation, because, "tokenize both with one tokenizer")
