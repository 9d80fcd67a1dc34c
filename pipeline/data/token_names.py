"""Tokens as a person reads them: their text, and the names of control tokens."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy.typing as npt

from pipeline.data.run_tokenizer import RunTokenizer

Ids = npt.NDArray[Any]  # integers, shape (num_tokens,)


class TokenNames:
    """The texts of a run's tokens; their ids, where nothing says which tokenizer made them."""

    def __init__(self, tokenizer: RunTokenizer) -> None:
        self._tokenizer = tokenizer.tokenizer if tokenizer.path is not None else None
        if self._tokenizer is not None:
            self._text = self._tokenizer.token_text()
            self._names = {token: name for name, token in self._tokenizer.special_tokens.items()}

    def text(self, ids: Ids) -> str:
        """The text of `ids`, with the space in front that it begins with; control tokens by their names."""
        return "".join(text for _, text in self.runs(ids))

    def runs(self, ids: Ids) -> Iterator[tuple[bool, str]]:
        """The text of `ids` in parts: whether one is a control token, and its name or the text of several tokens."""
        if self._tokenizer is None:
            yield False, "".join(f" {token}" for token in ids.tolist())
            return
        for is_special, run in groupby(ids.tolist(), key=lambda token: self._content(token) is None):
            if is_special:
                for token in run:
                    yield True, self._names.get(token, f"<{token}>")
            else:
                yield False, b"".join(map(self._spelled, run)).decode("utf-8", errors="replace")

    def _content(self, token: int) -> bytes | None:
        return self._text.content[token] if 0 <= token < len(self._text.content) else None

    def _spelled(self, token: int) -> bytes:
        """The bytes of a token, with a space before a word where tokens do not carry it."""
        content, continues = self._content(token) or b"", self._text.continues
        return content if continues is None or continues[token] else b" " + content
