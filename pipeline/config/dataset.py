"""What a run config and the tokens that it names must agree on."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from pipeline.config.problems import Problem, top_key, wrong
from pipeline.config.sample import sample_window
from pipeline.config.schema import RunConfig
from pipeline.errors import DataError
from pipeline.shards import ShardSet, find_shards

VALIDATION = "data.validation"


@dataclass(frozen=True)
class Named:
    """What a path in the `data` section names, or why it cannot be had."""

    path: str
    shards: ShardSet | DataError


def read(data: Any) -> dict[str, Named]:
    """What each path in the `data` section names, by its dotted key."""
    return {key: Named(path, _find(path)) for key, path in _paths(data) if isinstance(path, str) and path}


def _paths(data: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(data, dict):
        return
    train = data.get("train")
    if isinstance(train, list | tuple):
        for number, source in enumerate(train):
            if isinstance(source, dict):
                yield f"data.train.{number}.path", source.get("path")
    else:
        yield "data.train", train
    yield VALIDATION, data.get("validation")


def _find(path: str) -> ShardSet | DataError:
    try:
        return find_shards(path)
    except DataError as error:
        return error


def with_vocab_size(model: Any, found: Mapping[str, Named]) -> Any:
    """The `model` section with the training tokens' vocabulary size where it has none.

    Without training tokens it is 1: that data.train is wrong is then the one problem to report.
    """
    if not isinstance(model, dict) or model.get("vocab_size") is not None:
        return model
    train = [named.shards for key, named in found.items() if key != VALIDATION]
    whole = [shards for shards in train if isinstance(shards, ShardSet)]
    sizes = [shards.vocab_size for shards in whole if shards.vocab_size is not None]
    if whole and not sizes:  # pairs of other programs do not say
        return {key: value for key, value in model.items() if key != "vocab_size"}
    return model | {"vocab_size": max(sizes, default=1)}


def problems(
    config: RunConfig, found: Mapping[str, Named], unusable: AbstractSet[str] = frozenset()
) -> Iterator[Problem]:
    """What is wrong with the tokens in themselves, with each other, and for this model."""
    for key, named in found.items():
        if isinstance(named.shards, DataError):
            text = f"{key}={named.path} is wrong because {named.shards}"
            yield Problem(text=text, keys=frozenset({top_key(key)}))
    whole = {key: named.shards for key, named in found.items() if isinstance(named.shards, ShardSet)}
    all_train = all(isinstance(named.shards, ShardSet) for key, named in found.items() if key != VALIDATION)
    if all_train and "model.vocab_size" not in unusable:
        yield from _ids_out_of_range(config.model.vocab_size, whole)
    yield from _strangers(whole)
    if not any(key.startswith(("model.seq_len", "objective.")) for key in unusable):
        yield from _too_short(config, whole)


def _too_short(config: RunConfig, whole: Mapping[str, ShardSet]) -> Iterator[Problem]:
    try:
        window = sample_window(config)
    except DataError as error:
        yield Problem(text=str(error), keys=frozenset({"model.seq_len"}))
        return
    for key, shards in whole.items():
        if shards.num_tokens < window.length:
            because = f"its {shards.num_tokens} tokens do not fill one sample of {window.length} ({window.formula})"
            yield wrong(key, shards.path, because, "give more text, or lower model.seq_len")
        if config.objective.reads_pairs and not shards.has_sentences:
            because = f"objective.pairs={config.objective.pairs} needs documents of several sentences"
            do = "tokenize text of longer documents with --split-sentences, or set objective.pairs=none"
            yield wrong(key, shards.path, because, do)


def _ids_out_of_range(vocab_size: int, whole: Mapping[str, ShardSet]) -> Iterator[Problem]:
    for key, shards in whole.items():
        highest = shards.highest_id if shards.vocab_size is None else shards.vocab_size - 1
        if vocab_size <= highest:
            do = f"set it to {highest + 1} or leave it out" if shards.vocab_size else f"set it to {highest + 1} or more"
            yield wrong("model.vocab_size", vocab_size, f"{key} holds ids up to {highest}", do)


def _strangers(whole: Mapping[str, ShardSet]) -> Iterator[Problem]:
    """Tokens of other tokenizers than the first ones', and tokens that are named twice."""
    seen: dict[str, str] = {}
    tokenizer: tuple[str, str] | None = None
    for key, shards in whole.items():
        if shards.tokenizer_sha256 is not None:
            tokenizer = tokenizer or (f"{key}={shards.path}", shards.tokenizer_sha256)
            if shards.tokenizer_sha256 != tokenizer[1]:
                because = f"its tokenizer is not the one of {tokenizer[0]}"
                yield wrong(key, shards.path, because, "tokenize both with one tokenizer")
        twice = next((seen[one.fingerprint] for one in shards.shards if one.fingerprint in seen), None)
        if twice is not None:
            what = "would be measured with what was trained on" if key == VALIDATION else "would be read twice"
            because = f"it holds a shard that {twice} holds too, so that the model {what}"
            do = (
                "keep documents apart with `pretrain data split`"
                if key == VALIDATION
                else "name it once, with a weight"
            )
            yield wrong(key, shards.path, because, do)
        seen |= dict.fromkeys((one.fingerprint for one in shards.shards if one.num_tokens), f"{key}={shards.path}")
