"""A tokenizer.json (BPE, byte-level BPE, Unigram, WordPiece), read by Hugging Face's `tokenizers`."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from data_prep.errors import DataError
from data_prep.tokenizer.token_roles import find_roles, read_named_tokens
from data_prep.tokenizer.token_text import TokenText, json_token_text
from data_prep.tokenizer.tokenizers import refuse_surrogates

CHARACTERS_PER_CALL = 2**18  # the library answers in objects that are 130 times as large as the text

# Where a text may be cut if it is longer: BPE that splits words first lets no token go on there; other models are cut
# where all have a space. Each cut is tried out on what surrounds it, in WINDOW characters on both sides.
LETTER_ENDS = re.compile(r"(?<=[^\W\d_])(?=[\W\d])")
SINGLE_SPACE = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])")
WINDOW = 200
MAX_TRIES = 50


class JsonTokenizer:
    """The ids that `tokenizers` gives, with no tokens added, nothing cut off and nothing padded.

    The tokens that tokenizer_config.json and special_tokens_map.json give a role are special even where tokenizer.json
    does not say so: `transformers` makes them so as well.
    """

    kind = "hf"

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self.path, self.folder = path, path.parent
        self.sha256 = hashlib.sha256(self._content).hexdigest()
        try:
            definition = orjson.loads(self._content)
            vocab = _vocab(definition["model"])
            self._added_tokens = self._named_tokens(vocab, definition.get("added_tokens") or ())
            self._model_type = str(definition["model"].get("type", "")).lower()
            dropout = definition["model"].get("dropout")
            self.vocab_size: int = max([-1, *vocab.values(), *(one["id"] for one in self._added_tokens)]) + 1
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise DataError(f"{path} is not a tokenizer.json of Hugging Face: {error!r}. Copy it again.") from error
        if dropout:
            raise DataError(f"{path}: model.dropout={dropout} makes its ids random. Set it to null.")
        special = [one for one in self._added_tokens if one["special"]]
        self.special_tokens: Mapping[str, int] = {one["content"]: one["id"] for one in special}

    def definition(self) -> dict[str, Any]:
        """The content of the file, without truncation and padding. It is large, and therefore made anew each time."""
        content: dict[str, Any] = orjson.loads(self._content)
        return content | {"truncation": None, "padding": None, "added_tokens": self._added_tokens}

    def _named_tokens(self, vocab: dict[str, int], added: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The added tokens as tokenizer.json has them, and those of `vocab` that only another file calls special."""
        ids = vocab | {one["content"]: one["id"] for one in added}
        named = read_named_tokens(self.folder)
        self.roles = find_roles(named, ids)
        self.bos_id, self.eod_id, self.pad_id = self.roles.bos_id, self.roles.eod_id, self.roles.pad_id
        special = {name for name in named.special if name in ids}
        known = {one["content"] for one in added}
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        missing = [{"id": ids[name], "content": name, **flags} for name in named.special if name in special - known]
        return [{**one, "special": one["special"] or one["content"] in special} for one in added] + missing

    @property
    def model_type(self) -> str:
        return self._model_type

    @property
    def matched_tokens(self) -> Sequence[str]:
        return [one["content"] for one in self._added_tokens if not one["special"]]

    def token_text(self) -> TokenText:
        definition = self.definition()
        return json_token_text(definition, vocab=_vocab(definition["model"]), vocab_size=self.vocab_size)

    @cached_property
    def _model(self) -> Any:
        from tokenizers import Tokenizer

        try:
            model = Tokenizer.from_str(orjson.dumps(self.definition()).decode())
        except Exception as error:  # the library raises nothing narrower
            raise DataError(f"{self.path} cannot be loaded: {error}. Copy it again.") from error
        for one in self._added_tokens:
            if (found := model.token_to_id(one["content"])) != one["id"]:
                raise DataError(
                    f"{self.path} gives {one['content']!r} the id {one['id']}, but Hugging Face's tokenizers would "
                    f"use {found}. Save it again with transformers."
                )
        return model

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        return self._encode(texts, names_are_text=True)

    def encode_batch_with_special(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        return self._encode(texts, names_are_text=False)

    def decode(self, ids: Iterable[int]) -> str:
        text: str = self._model.decode([int(token) for token in ids], skip_special_tokens=True)
        return text

    def _encode(self, texts: Sequence[str], *, names_are_text: bool) -> list[npt.NDArray[np.int32]]:
        self._model.encode_special_tokens = names_are_text
        encoded: list[npt.NDArray[np.int32]] = []
        for batch in _batches(texts):
            try:
                if len(batch[0]) > CHARACTERS_PER_CALL:  # it is alone
                    encoded.append(np.concatenate([self._ids([part])[0] for part in self._parts(batch[0])]))
                else:
                    encoded += self._ids(batch)
            except TypeError:
                refuse_surrogates(batch)
                raise
        return encoded

    def _ids(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        found = self._model.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int32) for one in found]

    def _parts(self, text: str) -> Iterator[str]:
        """A long `text`, cut where that leaves no trace in its ids; whole where no such place is found."""
        places = LETTER_ENDS if self.model_type == "bpe" and self._model.pre_tokenizer else SINGLE_SPACE
        start = 0
        while len(text) - start > CHARACTERS_PER_CALL:
            near = itertools.islice(places.finditer(text, start + CHARACTERS_PER_CALL // 2), MAX_TRIES)
            end = next((place.start() for place in near if self._can_cut(text, place.start())), None)
            if end is None:
                break
            yield text[start:end]
            start = end
        yield text[start:]

    def _can_cut(self, text: str, at: int) -> bool:
        left, right = text[max(at - WINDOW, 0) : at], text[at : at + WINDOW]
        whole, *parts = self._ids([left + right, left, right])
        return np.array_equal(whole, np.concatenate(parts))


def _vocab(model: dict[str, Any]) -> dict[str, int]:
    """The tokens of a model; a unigram model lists them with their scores."""
    vocab = model["vocab"]
    return {token: i for i, (token, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """`texts` in their order, some together, but no more than CHARACTERS_PER_CALL unless one alone is longer."""
    start, characters = 0, 0
    for end, text in enumerate(texts):
        if characters + len(text) > CHARACTERS_PER_CALL and end > start:
            yield texts[start:end]
            start, characters = end, 0
        characters += len(text)
    if start < len(texts):
        yield texts[start:]
