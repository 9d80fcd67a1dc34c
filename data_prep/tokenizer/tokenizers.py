"""One interface over tokenizers; the ids of a data set, of training and of the exported model come through it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_prep.errors import DataError
from data_prep.tokenizer.token_roles import Roles
from data_prep.tokenizer.token_text import TokenText

MODEL_FILE = "tokenizer.model"
MODEL_FILES = (MODEL_FILE, "spiece.model")
JSON_FILE = "tokenizer.json"

# SentencePiece adds log-probabilities in float32. `tokenizer_training` rounds them to multiples of SCORE_STEP, so that
# sums are exact below 2^24 steps; a text is cut into parts that stay below (16 nat a character is more than any text
# needs), at line ends, which no piece crosses. Then the ids do not depend on rounding, and Hugging Face's are equal.
SCORE_STEP = 2.0**-4
MAX_PART_CHARACTERS = int(2**24 * SCORE_STEP / 16)


class Tokenizer(Protocol):
    """Text to ids and back: the reference that every faster engine must agree with.

    Attributes:
        kind: the library that defines the ids: "sentencepiece" or "hf".
        vocab_size: ids are 0 to vocab_size - 1, those of added tokens included.
        roles: the ids of the tokens with a role; bos_id, eod_id and pad_id are short for those of it.
        sha256: of the model file, in hex: equal for tokenizers that give equal ids.
        folder: where it was loaded from; `path` is the model file.
        special_tokens: the names of control tokens, as they may be spelled in a text, and their ids.
    """

    kind: str
    vocab_size: int
    roles: Roles
    bos_id: int | None
    eod_id: int | None
    pad_id: int | None
    sha256: str
    folder: Path
    path: Path
    special_tokens: Mapping[str, int]

    @property
    def model_type(self) -> str:
        """What cuts words into tokens: bpe, unigram, wordpiece, ..."""

    @property
    def matched_tokens(self) -> Sequence[str]:
        """Names that are one token wherever they are spelled, though they are not special."""

    def token_text(self) -> TokenText:
        """What each id stands for. It is large, and therefore made anew each time."""

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """The ids of each text, int32, shape (num_tokens,). None are added; names of special tokens are plain text.

        Raises:
            DataError: a text is not Unicode (it holds half of a surrogate pair).
        """

    def encode_batch_with_special(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """As `encode_batch`, but names of special tokens that are spelled in a text become those tokens."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special tokens have none."""


def refuse_surrogates(texts: Iterable[str]) -> None:
    """Raise DataError if a text holds half of a surrogate pair; the libraries' own errors do not name the cause."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"a text is not Unicode: {error}. Mend or remove it; it begins {text[:60]!r}.") from error
