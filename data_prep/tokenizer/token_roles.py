"""Which tokens of a Hugging Face tokenizer begin and end a document or fill a batch, and which others are special."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from data_prep.errors import DataError

# In this order: a later file of transformers overrides nothing that an earlier one says.
FILES = ("tokenizer_config.json", "special_tokens_map.json")
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
LISTS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")  # the last two: v5

# Looked for in the vocabulary where no file names the role, the first that is there.
WELL_KNOWN = {
    "bos_token": (
        "<|begin_of_text|>",
        "<s>",
        "<bos>",
        "<|bos|>",
        "[BOS]",
        "<|startoftext|>",
        "<\uff5cbegin▁of▁sentence\uff5c>",
    ),
    "eos_token": (
        "<|endoftext|>",
        "<|end_of_text|>",
        "</s>",
        "<eos>",
        "<|eos|>",
        "[EOS]",
        "<\uff5cend▁of▁sentence\uff5c>",
    ),
    "pad_token": ("<pad>", "<|pad|>", "[PAD]", "<PAD>", "<|padding|>"),
}


@dataclass(frozen=True)
class Roles:
    """The ids of the roles, None where a tokenizer has none, and all names that the files call special."""

    bos_id: int | None
    eod_id: int | None
    pad_id: int | None
    special: tuple[str, ...]


def find_roles(folder: Path, ids: Mapping[str, int]) -> Roles:
    """What the files beside a tokenizer.json say, and the list of well-known names where they say nothing.

    Args:
        ids: of all tokens, by name. A beginning or padding token that is not among them is taken for none.

    Raises:
        DataError: a file is damaged, or names an end-of-sequence token that the tokenizer does not have.
    """
    named: dict[str, str] = {}
    special: list[str] = []
    for file in FILES:
        for role, name in _names(folder / file):
            special.append(name)
            named.setdefault(role, name)
    if "eos_token" in named and named["eos_token"] not in ids:
        raise DataError(
            f"{folder}: eos_token={named['eos_token']!r} is not in tokenizer.json. Save the tokenizer again with "
            "transformers, which adds it, or correct tokenizer_config.json."
        )
    for role, names in WELL_KNOWN.items():
        named.setdefault(role, next((name for name in names if name in ids), ""))
    return Roles(
        bos_id=ids.get(named["bos_token"]),
        eod_id=ids.get(named["eos_token"]),
        pad_id=ids.get(named["pad_token"]),
        special=tuple(dict.fromkeys(name for name in special if name in ids)),
    )


def _names(path: Path) -> Iterator[tuple[str, str]]:
    """Role and name of each special token in one file; those without a role have that of their list."""
    if not path.is_file():
        return
    try:
        content = orjson.loads(path.read_bytes())
        for role in ROLES:
            if name := _name(content.get(role)):
                yield role, name
        for key in LISTS:
            listed = content.get(key) or ()
            for value in listed.values() if isinstance(listed, dict) else listed:
                if name := _name(value):
                    yield key, name
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}. Copy it again, or remove it.") from error


def _name(value: Any) -> str | None:
    """A token is written as its name, or as an object that holds it."""
    name = value.get("content") if isinstance(value, dict) else value
    return name if isinstance(name, str) else None
