"""One interface over tokenizers; the ids of a data set, of training and of the exported model come through it."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_prep.errors import DataError

MODEL_FILE = "tokenizer.model"

# SentencePiece adds log-probabilities in float32. `tokenizer_training` rounds them to multiples of SCORE_STEP, so that
# sums are exact below 2^24 steps; a text is cut into parts that stay below (16 nat a character is more than any text
# needs), at line ends, which no piece crosses. Then the ids do not depend on rounding, and Hugging Face's are equal.
SCORE_STEP = 2.0**-4
MAX_PART_CHARACTERS = int(2**24 * SCORE_STEP / 16)


class Tokenizer(Protocol):
    """Text to ids and back, without loss.

    Attributes:
        vocab_size: ids are 0 to vocab_size - 1.
        eod_id: ends a document in a data set; the end-of-sequence token of the exported model.
        sha256: of the model, in hex: equal for tokenizers that give equal ids.
        folder: where it was loaded from.
    """

    vocab_size: int
    bos_id: int
    eod_id: int
    pad_id: int
    sha256: str
    folder: Path

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """The ids of each text, int32, shape (num_tokens,). None are added; names of special tokens are plain text."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special tokens have none."""


def load(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`, as `pretrain tokenizer train` made it.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} holds no tokenizer: {MODEL_FILE} is missing. Make one with `pretrain tokenizer train`."
        )
    return SentencePieceTokenizer(path)


class SentencePieceTokenizer:
    """A SentencePiece model, read from its file."""

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        content = path.read_bytes()
        try:
            self._model = SentencePieceProcessor()
            self._model.LoadFromSerializedProto(content)  # unlike the constructor, it refuses an empty file
            cut = self._model.encode("x\n", out_type=int) + self._model.encode("\n x", out_type=int)
            self._can_cut = self._model.encode("x\n\n x", out_type=int) == cut
        except RuntimeError as error:
            raise DataError(f"{path} is not a SentencePiece model: {error}. Train or copy it again.") from error
        self.vocab_size: int = self._model.vocab_size()
        self.bos_id: int = self._model.bos_id()
        self.eod_id: int = self._model.eos_id()
        self.pad_id: int = self._model.pad_id()
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.folder = path.parent
        if self.eod_id < 0:
            raise DataError(f"{path} has no end-of-sequence token, which ends documents. Train one with it.")

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        parts = [list(_parts(text)) if self._can_cut else [text] for text in texts]
        encoded = iter(self._model.encode([part for of_one in parts for part in of_one], out_type=int))
        return [np.concatenate([np.array(next(encoded), dtype=np.int32) for _ in of_one]) for of_one in parts]

    def decode(self, ids: Iterable[int]) -> str:
        text: str = self._model.decode([int(token) for token in ids])
        return text


def _parts(text: str) -> Iterable[str]:
    """`text`, cut after line ends into parts of about MAX_PART_CHARACTERS at most; whole if it is shorter."""
    start = 0
    while len(text) - start > MAX_PART_CHARACTERS:
        end = text.rfind("\n", start, start + MAX_PART_CHARACTERS) + 1
        end = end or text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end
    yield text[start:]
