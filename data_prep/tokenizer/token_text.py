"""The text that each token of a vocabulary stands for, in bytes, and where only a mark tells what goes on with a word.

How a tokenizer.json writes text is read from its decoder, its pre-tokenizer and its model.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

SPACE = "\u2581"  # SentencePiece's mark of a space
BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")  # a byte of a character that is no piece

Spelling = Callable[[str], bytes]
Definition = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TokenText:
    """What each id stands for.

    Attributes:
        content: the bytes of each id, a space that the token carries included; parts of UTF-8 where characters are
            spread over tokens. None for special tokens, and for ids that no token has.
        continues: bool, shape (vocab_size,): a mark says that a token goes on with the word of the one before, such as
            WordPiece's ##. None where tokens carry the white space of a text, so that no mark is needed. All False
            where a tokenizer has neither, as with whole words; or with word pieces that look the same at any place,
            whose words nobody can find.
    """

    content: Sequence[bytes | None]
    continues: npt.NDArray[np.bool_] | None


def json_token_text(definition: Definition, *, vocab: Mapping[str, int], vocab_size: int) -> TokenText:
    """What the ids of a tokenizer.json stand for.

    Args:
        definition: the content of the file; its added tokens override those of `vocab`.
    """
    model = definition["model"]
    prefix = model.get("continuing_subword_prefix") or ""
    is_marked = not _carries_spaces(definition)
    spelling = _spelling(definition, prefix=prefix if is_marked else "")
    content: list[bytes | None] = [None] * vocab_size
    continues = np.zeros(vocab_size, dtype=bool)
    for name, token in vocab.items():
        content[token] = spelling(name)
        continues[token] = bool(prefix) and name.startswith(prefix)
    for one in definition["added_tokens"]:
        content[one["id"]] = None if one["special"] else one["content"].encode()
        continues[one["id"]] = False
    return TokenText(content=content, continues=continues if is_marked else None)


def _carries_spaces(definition: Definition) -> bool:
    """Whether the white space of a text is in its tokens: as such, as a mark, or as the end of a word."""
    if _is_byte_level(definition) or _space_mark(definition) or definition["model"].get("end_of_word_suffix"):
        return True
    splits = bool(definition.get("pre_tokenizer")) or definition["model"].get("type") in ("WordPiece", "WordLevel")
    return not splits or "Fuse" in _types(definition, "decoder")


def _spelling(definition: Definition, *, prefix: str) -> Spelling:
    """A function from the name of a token in the vocabulary to the bytes that it stands for."""
    if _is_byte_level(definition):
        plain: Spelling = _from_byte_level
    elif definition["model"].get("byte_fallback") or "ByteFallback" in _types(definition, "decoder"):
        plain = _from_byte_name
    else:
        plain = str.encode
    suffix, mark = definition["model"].get("end_of_word_suffix") or "", _space_mark(definition)

    def spelled(name: str) -> bytes:
        name, ends_word = name.removeprefix(prefix), bool(suffix) and name.endswith(suffix)
        name = name.removesuffix(suffix) if ends_word else name
        return plain(name.replace(mark, " ") if mark else name) + b" " * ends_word

    return spelled


def _is_byte_level(definition: Definition) -> bool:
    return "ByteLevel" in _types(definition, "decoder", "pre_tokenizer")


def _space_mark(definition: Definition) -> str | None:
    """What stands for a space in tokens: the character of Metaspace, or what a decoder or normalizer replaces."""
    for step in _steps(definition, "decoder", "pre_tokenizer"):
        if step.get("type") == "Metaspace":
            return str(step.get("replacement", SPACE))
    replaced = [step for step in _steps(definition, "decoder") if step.get("type") == "Replace"]
    for step in replaced:
        if step.get("content") == " " and (mark := step["pattern"].get("String")):
            return str(mark)
    replaced = [step for step in _steps(definition, "normalizer") if step.get("type") == "Replace"]
    return next((str(step["content"]) for step in replaced if step["pattern"].get("String") == " "), None)


def _types(definition: Definition, *parts: str) -> set[str]:
    return {str(step.get("type")) for step in _steps(definition, *parts)}


def _steps(definition: Definition, *parts: str) -> Iterator[Definition]:
    """The steps of some parts of a tokenizer.json, which may be sequences of others."""
    for part in parts:
        if step := definition.get(part):
            inner = next((step[key] for key in ("decoders", "pretokenizers", "normalizers") if key in step), None)
            yield from [step] if inner is None else (found for one in inner for found in _steps({part: one}, part))


def _from_byte_level(name: str) -> bytes:
    byte_of = bytes_of_characters()
    known = all(character in byte_of for character in name)
    return bytes(byte_of[character] for character in name) if known else name.encode()


def _from_byte_name(name: str) -> bytes:
    found = BYTE.fullmatch(name)
    return bytes.fromhex(found[1]) if found else name.encode()


@cache
def bytes_of_characters() -> Mapping[str, int]:
    """How byte-level BPE writes bytes: printable Latin-1 as itself, the others from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
