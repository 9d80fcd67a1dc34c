"""The tokenizer that goes with an exported model: found, checked against the training data, copied."""

import shutil
from pathlib import Path

from data_prep.tokenizer import loading, tokenizers
from pipeline.config.schema import RunConfig
from pipeline.convert.special_ids import SpecialIds
from pipeline.errors import DataError
from pipeline.shards import ShardSet, find_shards

REQUIRED = ("tokenizer.json", "tokenizer_config.json")
OPTIONAL = ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja")


def find_tokenizer(config: RunConfig, given: Path | None) -> tokenizers.Tokenizer:
    """The tokenizer in `given`, a folder or file, or else that which the config or the manifest of `data.train` names.

    Raises:
        DataError: there is none, it is not the one that made the training data, or transformers could not load it.
    """
    shards = _training_shards(config, required=given is None)
    path = given or (Path(config.data.tokenizer) if config.data.tokenizer else shards.tokenizer if shards else None)
    if path is None:
        raise DataError("no manifest of data.train names the tokenizer. Give --tokenizer DIR.")
    folder = path.parent if path.is_file() else path
    absent = [name for name in REQUIRED if not (folder / name).is_file()]
    if absent:
        raise DataError(
            f"{folder} is not a whole tokenizer: {', '.join(absent)} missing. "
            "Give the folder that `pretrain tokenizer train` wrote with --tokenizer DIR."
        )
    tokenizer = loading.load(path)
    if shards and shards.tokenizer_sha256 not in (None, tokenizer.sha256):
        raise DataError(
            f"the tokenizer in {folder} is not the one that made {shards.path} (sha256 "
            f"{tokenizer.sha256[:12]}, not {str(shards.tokenizer_sha256)[:12]}). Give the right one with --tokenizer "
            "DIR."
        )
    if tokenizer.vocab_size > config.model.vocab_size:
        raise DataError(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} ids but the model knows {config.model.vocab_size}. "
            "Give the right one with --tokenizer DIR."
        )
    return tokenizer


def _training_shards(config: RunConfig, *, required: bool) -> ShardSet | None:
    """The first source whose manifest names a tokenizer; None if there is none, or no source can be read."""
    try:
        found = [find_shards(source.path) for source in config.data.train]
    except DataError as error:
        if not required or config.data.tokenizer:
            return None
        raise DataError(
            f"the tokenizer is not known, as data.train cannot be read ({error}). "
            "Run this where the run was started, or give --tokenizer DIR."
        ) from error
    return next((shards for shards in found if shards.tokenizer is not None), None)


def special_ids(tokenizer: tokenizers.Tokenizer) -> SpecialIds:
    """The ids for the config."""
    return SpecialIds(bos=tokenizer.bos_id, eos=tokenizer.eod_id, pad=tokenizer.pad_id)


def copy_tokenizer(tokenizer: tokenizers.Tokenizer, out: Path) -> None:
    """Copy the files that `transformers.AutoTokenizer` reads, and SentencePiece's where it has one, to `out`."""
    for name in {*REQUIRED, *OPTIONAL, tokenizer.path.name}:
        if (tokenizer.folder / name).is_file():
            shutil.copyfile(tokenizer.folder / name, out / name)
