"""A tokenizer in the form that an engine loads, where it has one."""

import contextlib
import importlib
from collections.abc import Container, Iterator, Mapping
from typing import Any

import orjson

from data_prep.tokenizer.json_tokenizer import JsonTokenizer
from data_prep.tokenizer.token_text import bytes_of_characters
from data_prep.tokenizer.tokenizers import JSON_FILE, Tokenizer

MAX_REASON_CHARACTERS = 200
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


class EngineUnavailable(Exception):
    """An engine is not installed, or cannot load a tokenizer, or fails; the message says why."""


@contextlib.contextmanager
def failures_explained() -> Iterator[None]:
    """What a library raises in the block, as EngineUnavailable.

    Raises:
        EngineUnavailable: it raised an error, or its Rust code panicked, which is no `Exception` to Python.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, (ValueError, RuntimeError, TypeError, KeyError)) and not _is_panic(error):
            raise
        reason = " ".join(str(error).split())[:MAX_REASON_CHARACTERS]
        raise EngineUnavailable(f"it cannot load this tokenizer, or fails with it: {reason}") from error


def _is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


def plain_json(tokenizer: Tokenizer) -> str:
    """A tokenizer.json without what adds, cuts off or pads, and without special tokens, whose names are then text.

    For a SentencePiece model: the file beside it, or else a conversion by gigatoken. Either may fall short of the
    model; `engine_choice` compares.

    Raises:
        EngineUnavailable: there is no such form of it.
    """
    if isinstance(tokenizer, JsonTokenizer):
        definition = tokenizer.definition()
    else:
        beside = tokenizer.folder / JSON_FILE
        definition = orjson.loads(beside.read_bytes() if beside.is_file() else _converted(tokenizer))
        if merges := definition["model"].get("merges"):  # SentencePiece makes no control token out of text
            special = tokenizer.special_tokens
            definition["model"]["merges"] = [pair for pair in merges if "".join(pair) not in special]
    added = [one for one in definition["added_tokens"] or () if not one["special"]]
    changes = {"added_tokens": added, "post_processor": None, "truncation": None, "padding": None}
    return orjson.dumps(definition | changes).decode()


def _converted(tokenizer: Tokenizer) -> str:
    try:
        converter = importlib.import_module("gigatoken._load.sentencepiece")
        converted: str = converter.sentencepiece_to_tokenizer_json(tokenizer.path.read_bytes())
    except ImportError as error:
        raise EngineUnavailable(f"there is no {JSON_FILE}, and no gigatoken to make one ({error})") from error
    except ValueError as error:
        raise EngineUnavailable(f"the SentencePiece model cannot be converted: {error}") from error
    return converted


def tiktoken_parts(tokenizer: Tokenizer) -> tuple[str, Mapping[bytes, int]]:
    """The pattern that cuts a text into words, and the rank of each token's bytes, which is its id as well.

    Raises:
        EngineUnavailable: the tokenizer is not byte-level BPE, or does something that tiktoken has no counterpart of.
    """
    if not isinstance(tokenizer, JsonTokenizer) or tokenizer.model_type != "bpe":
        raise EngineUnavailable("it takes byte-level BPE only")
    definition = tokenizer.definition()
    if definition.get("normalizer") or tokenizer.matched_tokens:
        raise EngineUnavailable("it knows neither normalization nor added tokens that are not special")
    return _pattern(definition.get("pre_tokenizer") or {}), _ranks(definition["model"], tokenizer.special_tokens)


def _pattern(splitter: Mapping[str, Any]) -> str:
    """The regular expression of a pre-tokenizer: GPT-2's, or one Split before ByteLevel, as in Llama 3's."""
    steps = splitter.get("pretokenizers", [splitter])
    if steps and steps[-1].get("type") == "ByteLevel" and not steps[-1].get("add_prefix_space"):
        if len(steps) == 1 and steps[0].get("use_regex", True):
            return GPT2_PATTERN
        split = steps[0]
        pattern = split.get("pattern", {}).get("Regex") if split.get("type") == "Split" else None
        plain = (split.get("behavior"), bool(split.get("invert"))) in (("Isolated", False), ("Removed", True))
        if len(steps) == 2 and pattern and plain and not steps[1].get("use_regex", True):
            return str(pattern)
    raise EngineUnavailable("its way of cutting words is not a single pattern")


def _ranks(model: Mapping[str, Any], special: Container[str]) -> dict[bytes, int]:
    if any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")):
        raise EngineUnavailable("its tokens carry marks of their place in a word")
    byte_of = bytes_of_characters()
    names = {name: token for name, token in model["vocab"].items() if name not in special}
    try:
        ranks = {bytes(byte_of[character] for character in name): token for name, token in names.items()}
    except KeyError as error:
        raise EngineUnavailable(f"{error} in its vocabulary stands for no byte") from error
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    merged = [model["vocab"].get("".join(pair), -1) for pair in pairs]
    if sorted(merged) != merged or any(bytes([byte]) not in ranks for byte in range(256)):
        raise EngineUnavailable("the order of its merges is not the order of its ids")
    return ranks
