"""Fill in the middle: a document's middle is moved behind its end, so that a decoder learns to fill gaps.

Source: Bavarian et al., "Efficient training of language models to fill in the middle", 2022. Applied to the pieces of
documents that a window holds (the paper's "context level"); its PSM, and its SPM in the variant that begins like PSM.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.objectives.draws import Draws
from pipeline.objectives.samples import Windows
from pipeline.objectives.vocabulary import Vocabulary

Tokens = npt.NDArray[np.int32]  # of shape (num_tokens,)

FEWEST = 3  # tokens or characters, one for each part
UNDECODABLE = "\ufffd"  # what decoding gives for bytes that are no text, as where a window begins within a character
# Texts and their rests, of which a tokenizer that adds a space in front, folds case or drops blanks changes one.
PROBES = (("ab", "cd"), ("A b", " c"), ("x\n", "  y"), ("né", "中"))


class TextCodec(Protocol):
    """A tokenizer's two ways: plain text without special tokens, and nothing added in front or behind."""

    def encode(self, text: str) -> Sequence[int]:
        """The ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""


class Fim:
    """Permutes documents of windows.

    Args:
        rate: the share of documents that are permuted.
        spm_share: how many of those get `<PRE> <SUF> suffix <MID> prefix middle`; the others get
            `<PRE> prefix <SUF> suffix <MID> middle`.
        cut: both cuts lie anywhere between tokens or characters, ends included.
        text: needed to cut between characters.

    Raises:
        DataError: the tokenizer has no ids for it, or it cannot be cut between characters.
    """

    def __init__(
        self,
        *,
        vocabulary: Vocabulary,
        rate: float,
        spm_share: float = 0.5,
        cut: Literal["token", "character"] = "token",
        text: TextCodec | None = None,
        seed: int,
    ) -> None:
        if vocabulary.fim_ids is None:
            raise DataError(
                f"objective.fim_rate={rate} is not possible because the tokenizer has no tokens for prefix, middle and "
                "suffix. Use a tokenizer that has them, or set objective.fim_rate=0."
            )
        if cut == "character":
            _check_codec(text)
        self._text = text if cut == "character" else None
        self._rate, self._spm_share = rate, spm_share
        self._ids = np.array(vocabulary.fim_ids, np.int32)
        self._bos_id = -1 if vocabulary.bos_id is None else vocabulary.bos_id
        self._eod_id = -1 if vocabulary.eod_id is None else vocabulary.eod_id
        self._is_special = vocabulary.is_special
        self._draws = Draws(seed=seed, purpose="fim")

    def apply(self, windows: Windows, positions: npt.NDArray[np.int64]) -> Windows:
        """The same windows with documents permuted, int32.

        Each permuted document gains three tokens: what no longer fits is cut off at the window's end.
        """
        assert windows.starts_document is not None, "the reader must mark where documents begin"
        tokens, lengths = windows.tokens.astype(np.int32), windows.lengths.copy()
        starts = windows.starts_document.copy()
        for row, position in enumerate(positions.tolist()):
            length = int(lengths[row])
            bounds = [0, *(np.flatnonzero(starts[row, 1:length]) + 1).tolist(), length]
            drawn = self._draws.of(position).random((len(bounds) - 1, 4))
            if not (drawn[:, 0] < self._rate).any():
                continue
            documents = [
                self._document(tokens[row, begin:end], *numbers)
                for begin, end, numbers in zip(bounds, bounds[1:], drawn.tolist(), strict=False)
            ]
            lengths[row] = _lay(documents, tokens[row], starts[row])
        return Windows(tokens=tokens, lengths=lengths, starts_document=starts)

    def _document(self, document: Tokens, whether: float, order: float, first: float, second: float) -> Tokens:
        """One document permuted, or as it is; the other arguments are drawn from [0, 1)."""
        if whether >= self._rate or len(document) < FEWEST:
            return document
        begin = int(document[0] == self._bos_id)
        end = len(document) - int(document[-1] == self._eod_id)
        body, cuts = document[begin:end], (min(first, second), max(first, second))
        parts = self._by_token(body, cuts) if self._text is None else self._by_character(body, cuts, self._text)
        if parts is None:
            return document
        prefix, middle, suffix = parts
        pre, mid, suf = self._ids[0:1], self._ids[1:2], self._ids[2:3]
        spm = order < self._spm_share
        permuted = (pre, suf, suffix, mid, prefix, middle) if spm else (pre, prefix, suf, suffix, mid, middle)
        return np.concatenate([document[:begin], *permuted, document[end:]])

    def _by_token(self, body: Tokens, cuts: tuple[float, float]) -> list[Tokens] | None:
        # A text that spells these tokens out could not be told from one that was permuted.
        if len(body) < FEWEST or (body[:, None] == self._ids).any():
            return None
        first, second = (int(cut * (len(body) + 1)) for cut in cuts)
        return [body[:first], body[first:second], body[second:]]

    def _by_character(self, body: Tokens, cuts: tuple[float, float], codec: TextCodec) -> list[Tokens] | None:
        if self._is_special[body].any():
            return None  # these have no text
        text = codec.decode(body.tolist())
        if len(text) < FEWEST or UNDECODABLE in text:
            return None
        first, second = (int(cut * (len(text) + 1)) for cut in cuts)
        parts = [codec.encode(part) for part in (text[:first], text[first:second], text[second:])]
        if codec.decode([token for part in parts for token in part]) != text:
            return None
        return [np.array(part, np.int32) for part in parts]


def _lay(documents: list[Tokens], tokens: Tokens, starts: npt.NDArray[np.bool_]) -> int:
    """Write documents one after the other into a window's arrays, and say how long the text in it is now."""
    laid = np.concatenate(documents)[: len(tokens)]
    tokens[: len(laid)] = laid
    begins = np.cumsum([len(document) for document in documents])[:-1]
    starts[1:] = False
    starts[begins[begins < len(laid)]] = True
    return len(laid)


def _check_codec(codec: TextCodec | None) -> None:
    """Refuse a tokenizer by which nearly no document could be cut, before the run is one without any."""
    assert codec is not None, "cutting between characters needs the tokenizer"
    for first, second in PROBES:
        decoded = codec.decode([*codec.encode(first), *codec.encode(second)])
        if decoded != first + second:
            raise DataError(
                f"objective.fim_cut=character is not possible with this tokenizer because the ids of {first!r} and of "
                f"{second!r}, one after the other, decode to {decoded!r}. Set objective.fim_cut=token."
            )
