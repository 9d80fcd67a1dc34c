"""A SentencePiece model, read from its file by SentencePiece's own library."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from data_prep.errors import DataError
from data_prep.tokenizer import tokenizers
from data_prep.tokenizer.special_tokens import cutter
from data_prep.tokenizer.token_roles import find_roles, read_named_tokens
from data_prep.tokenizer.token_text import SPACE, TokenText

SINGLE_SPACE = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")


class SentencePieceTokenizer:
    """The ids that SentencePiece gives. Special are its control tokens, its unknown token (as in Hugging Face's files),
    and the special tokens that a tokenizer.json beside it adds, such as T5's sentinels.
    """

    kind = "sentencepiece"

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        self._content = path.read_bytes()
        try:
            self._model: Any = SentencePieceProcessor()
            self._model.LoadFromSerializedProto(self._content)  # unlike the constructor, it refuses an empty file
        except RuntimeError as error:
            raise DataError(f"{path} is not a SentencePiece model: {error}. Train or copy it again.") from error
        self.path, self.folder = path, path.parent
        self.sha256 = hashlib.sha256(self._content).hexdigest()
        ids = range(self._model.vocab_size())
        special = [token for token in ids if self._model.is_control(token) or self._model.is_unknown(token)]
        added = _added_special_tokens(self.folder / tokenizers.JSON_FILE, first_id=len(ids))
        self.special_tokens: Mapping[str, int] = {self._model.id_to_piece(token): token for token in special} | added
        self.vocab_size: int = max([len(ids) - 1, *added.values()]) + 1
        named = dict(zip(self._model.id_to_piece(list(ids)), ids, strict=True)) | added
        self.roles = find_roles(read_named_tokens(self.folder), named, own=self._own_roles())
        self.bos_id, self.eod_id, self.pad_id = self.roles.bos_id, self.roles.eod_id, self.roles.pad_id

    def _own_roles(self) -> dict[str, str]:
        found = {
            "bos_token": self._model.bos_id(),
            "eos_token": self._model.eos_id(),
            "pad_token": self._model.pad_id(),
        }
        return {role: self._model.id_to_piece(token) for role, token in found.items() if token >= 0}

    @cached_property
    def _definition(self) -> Any:
        from sentencepiece import sentencepiece_model_pb2  # takes 0.15 s, which a worker process can do without

        return sentencepiece_model_pb2.ModelProto.FromString(self._content)

    @property
    def model_type(self) -> str:
        return ("", "unigram", "bpe", "word", "char")[self._definition.trainer_spec.model_type]

    def token_text(self) -> TokenText:
        special = set(self.special_tokens.values())
        content = [
            None if token in special or token >= self._model.vocab_size() else self._content_of(token)
            for token in range(self.vocab_size)
        ]
        return TokenText(content=content, continues=None)

    def _content_of(self, token: int) -> bytes:
        piece: str = self._model.id_to_piece(token)
        return bytes.fromhex(piece[3:5]) if self._model.is_byte(token) else piece.replace(SPACE, " ").encode()

    @property
    def matched_tokens(self) -> Sequence[str]:
        return [piece.piece for piece in self._definition.pieces if piece.type == piece.USER_DEFINED]

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        return [self._encode(text) for text in texts]

    def encode_batch_with_special(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """What stands between two names is encoded as a text of its own, as Megatron's `SentencePieceTokenizer` does.

        Hugging Face's tokenizers do the same, but for Llama's with `legacy=False`, which put no space before a part
        that is not the first.
        """
        cut = cutter(self.special_tokens)
        return [np.concatenate([self._part(part) for part in cut(text)], dtype=np.int32) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        special = set(self.special_tokens.values())
        text: str = self._model.decode([token for token in map(int, ids) if token not in special])
        return text

    def _part(self, part: str) -> npt.NDArray[np.int32]:
        """The ids of a name, or of what stands between two."""
        if part in self.special_tokens:
            return np.array([self.special_tokens[part]], dtype=np.int32)
        return self._encode(part) if part else np.empty(0, dtype=np.int32)

    def _encode(self, text: str) -> npt.NDArray[np.int32]:
        long = len(text) > tokenizers.MAX_PART_CHARACTERS
        parts = self._cut(text) if long and self._cut else [text]
        try:
            ids = [np.array(self._model.encode(part, out_type=int), dtype=np.int32) for part in parts]
        except (RuntimeError, UnicodeError):
            tokenizers.refuse_surrogates([text])
            raise
        return ids[0] if len(ids) == 1 else np.concatenate(ids)

    @cached_property
    def _cut(self) -> Callable[[str], Iterator[str]] | None:
        """Cuts a long text without a trace in its ids: None if this model allows no such thing."""

        def ids(*texts: str) -> list[int]:
            return [token for text in texts for token in self._model.encode(text, out_type=int)]

        pieces = [piece.piece for piece in self._definition.pieces]
        if ids("x\n\n x") == ids("x\n", "\n x") and not any("\n" in piece[:-1] for piece in pieces):
            return _cut_after_lines
        one_side = not any(SPACE in piece.lstrip(SPACE) or " " in piece for piece in pieces)
        if self.model_type == "bpe" and one_side and ids("x y") == ids("x", "y"):
            return _cut_at_spaces
        return None


def _cut_after_lines(text: str) -> Iterator[str]:
    """`text`, cut after line ends, which no piece crosses, into parts of about MAX_PART_CHARACTERS at most."""
    start = 0
    while len(text) - start > tokenizers.MAX_PART_CHARACTERS:
        end = text.rfind("\n", start, start + tokenizers.MAX_PART_CHARACTERS) + 1
        end = end or text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end
    yield text[start:]


def _cut_at_spaces(text: str) -> Iterator[str]:
    """`text` without single spaces that no merge crosses: the model puts one before each part by itself.

    Merges left and right of such a place do not see each other, so the parts have the ids of the whole text.
    """
    start = 0
    while found := SINGLE_SPACE.search(text, start + tokenizers.MAX_PART_CHARACTERS):
        yield text[start : found.start()]
        start = found.end()
    yield text[start:]


def _added_special_tokens(path: Path, *, first_id: int) -> dict[str, int]:
    """The special tokens that Hugging Face's file beside a model adds to it."""
    if not path.is_file():
        return {}
    try:
        added = orjson.loads(path.read_bytes()).get("added_tokens", ())
        return {one["content"]: one["id"] for one in added if one["special"] and one["id"] >= first_id}
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error!r}. Copy it again, or remove it.") from error
