"""Names of special tokens that are spelled in a text: finding them, and what is done about them.

`<|endoftext|>` in a web page would end a document in the middle, if it became the token. Policies: `split` reads the
name as the plain text that it is, `encode` makes the token of it, as Hugging Face's tokenizers do when nothing else is
said, and `error` refuses the text. A name is what is spelled exactly so, also where a tokenizer would lower-case it.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

from data_prep.errors import DataError

SpecialInText = Literal["split", "encode", "error"]
POLICIES: tuple[SpecialInText, ...] = get_args(SpecialInText)
MAX_PREFIXES = 8


def cutter(names: Iterable[str]) -> Callable[[str], list[str]]:
    """A function that cuts a text before and after each of `names`, the longest where several begin at one place."""
    ordered = sorted(filter(None, names), key=len, reverse=True)
    if not ordered:
        return lambda text: [text]
    return re.compile(f"({'|'.join(map(re.escape, ordered))})").split


class SpecialNames:
    """The names of a tokenizer's special tokens, and which texts hold one."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(set(filter(None, names)))
        self._common = os.path.commonprefix(self._names)  # noqa: RUF071  of characters it shall be
        self._prefixes = _prefixes(self._names)
        self._any = re.compile("|".join(map(re.escape, self._names)))

    def holds_special(self, texts: Sequence[str]) -> list[int]:
        """The indices of the texts that spell a special token's name, in ascending order.

        A batch is searched for what the names have in common at the speed of memory; only texts that hold this are
        looked at more closely.
        """
        if not self._names:
            return []
        return [i for i, text in enumerate(texts) if self._may_hold(text) and self._any.search(text)]

    def first_name(self, text: str) -> str | None:
        """The first name in `text`."""
        found = self._any.search(text) if self._names else None
        return found[0] if found else None

    def _may_hold(self, text: str) -> bool:
        return self._common in text and any(prefix in text for prefix in self._prefixes)


def refused(name: str, where: str) -> DataError:
    """The error of policy `error`, for a text that spells `name`."""
    return DataError(
        f"{where} spells the special token {name!r}. Remove it, or choose --special-in-text split (it stays text) "
        "or encode (it becomes the token)."
    )


def _prefixes(names: Sequence[str]) -> list[str]:
    """At most MAX_PREFIXES beginnings of which each name has one, as long as they can be."""
    length = max(map(len, names), default=0)
    while length > 1 and len({name[:length] for name in names}) > MAX_PREFIXES:
        length -= 1
    return sorted({name[:length] for name in names})
