"""Which tokens of a tokenizer have a role: they begin and end a document, fill a batch, stand for what is hidden."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any

from data_prep.errors import DataError

# In this order: a later file of transformers overrides nothing that an earlier one says.
FILES = ("tokenizer_config.json", "special_tokens_map.json")
FIM_ROLES = ("prefix_token", "middle_token", "suffix_token")  # CodeLlama's
ROLES = (
    *("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"),
    *FIM_ROLES,
)
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
    "mask_token": ("<mask>", "[MASK]", "<|mask|>"),
    "cls_token": ("[CLS]", "<cls>", "<|cls|>"),
    "sep_token": ("[SEP]", "<sep>", "<|sep|>"),
}
SENTINELS = ("<extra_id_{}>", "▁<extra_id_{}>")  # T5's, mT5's

# What stands before the prefix, the middle and the suffix of a text, in this order. DeepSeek writes begin, the prefix,
# hole, the suffix, end, the middle: its hole stands before the suffix, its end before the middle.
FIM = (
    ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),  # Qwen, CodeGemma, and `pretrain tokenizer train`
    ("<fim_prefix>", "<fim_middle>", "<fim_suffix>"),  # StarCoder
    ("<fim-prefix>", "<fim-middle>", "<fim-suffix>"),  # SantaCoder
    ("<\uff5cfim▁begin\uff5c>", "<\uff5cfim▁end\uff5c>", "<\uff5cfim▁hole\uff5c>"),  # DeepSeek
    ("▁<PRE>", "▁<MID>", "▁<SUF>"),  # CodeLlama
    ("<|code_prefix|>", "<|code_middle|>", "<|code_suffix|>"),  # GLM
    ("[PREFIX]", "[MIDDLE]", "[SUFFIX]"),  # Codestral
)


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The ids of the roles; None, or an empty tuple, where a tokenizer has no such token.

    Attributes:
        eod_id: ends a document in a data set; the end-of-sequence token.
        sentinel_ids: T5's <extra_id_0>, <extra_id_1>, ... in this order, as many as there are without a gap.
        fim_ids: of what stands before the prefix, the middle and the suffix of a text whose middle is to be filled
            in, in this order.
    """

    bos_id: int | None
    eod_id: int | None
    pad_id: int | None
    mask_id: int | None
    cls_id: int | None
    sep_id: int | None
    sentinel_ids: tuple[int, ...]
    fim_ids: tuple[int, int, int] | None


@dataclass(frozen=True, kw_only=True)
class NamedTokens:
    """What the files of transformers in `folder` say: the name for each role, and all names that are special."""

    folder: Path
    by_role: Mapping[str, str]
    special: tuple[str, ...]


def read_named_tokens(folder: Path) -> NamedTokens:
    """What tokenizer_config.json and special_tokens_map.json say, where there are such files.

    Raises:
        DataError: a file is damaged.
    """
    by_role: dict[str, str] = {}
    special: list[str] = []
    for file in FILES:
        for role, name in _names(folder / file):
            special.append(name)
            by_role.setdefault(role, name)
    return NamedTokens(folder=folder, by_role=MappingProxyType(by_role), special=tuple(dict.fromkeys(special)))


def find_roles(named: NamedTokens, ids: Mapping[str, int], *, own: Mapping[str, str] | None = None) -> Roles:
    """The roles that the model file gives, then those of the files beside it, then those of well-known names.

    Args:
        ids: of all tokens, by name. A token with another role than end-of-sequence that is not among them is taken
            for none.
        own: role to name, from the model file itself.

    Raises:
        DataError: the files name an end-of-sequence token that the tokenizer does not have.
    """
    names = {**named.by_role, **(own or {})}
    if "eos_token" in names and names["eos_token"] not in ids:
        raise DataError(
            f"{named.folder}: eos_token={names['eos_token']!r} is not in tokenizer.json. Save the tokenizer again with "
            "transformers, which adds it, or correct tokenizer_config.json."
        )
    for role, known in WELL_KNOWN.items():
        names.setdefault(role, next((name for name in known if name in ids), ""))
    return Roles(
        bos_id=ids.get(names["bos_token"]),
        eod_id=ids.get(names["eos_token"]),
        pad_id=ids.get(names["pad_token"]),
        mask_id=ids.get(names["mask_token"]),
        cls_id=ids.get(names["cls_token"]),
        sep_id=ids.get(names["sep_token"]),
        sentinel_ids=_sentinel_ids(ids),
        fim_ids=_fim_ids(names, ids),
    )


def _sentinel_ids(ids: Mapping[str, int]) -> tuple[int, ...]:
    kinds = (takewhile(ids.__contains__, map(name.format, count())) for name in SENTINELS)
    return max((tuple(ids[name] for name in names) for names in kinds), key=len)


def _fim_ids(names: Mapping[str, str], ids: Mapping[str, int]) -> tuple[int, int, int] | None:
    for prefix, middle, suffix in (tuple(names.get(role, "") for role in FIM_ROLES), *FIM):
        if prefix in ids and middle in ids and suffix in ids:
            return ids[prefix], ids[middle], ids[suffix]
    return None


def _names(path: Path) -> Iterator[tuple[str, str]]:
    """Role and name of each special token in one file; those without a role have that of their list."""
    if not path.is_file():
        return
    import orjson  # the command line takes names of tokens from this module, and shall start at once

    try:
        content = orjson.loads(path.read_bytes())
        for role in ROLES:
            if name := _name(content.get(role)):
                yield role, name
        for key in LISTS:
            listed = content.get(key) or ()
            for role, value in listed.items() if isinstance(listed, dict) else ((key, value) for value in listed):
                if name := _name(value):
                    yield role, name
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}. Copy it again, or remove it.") from error


def _name(value: Any) -> str | None:
    """A token is written as its name, or as an object that holds it."""
    name = value.get("content") if isinstance(value, dict) else value
    return name if isinstance(name, str) else None
