"""What a worker process turns texts into ids with: a fast engine, the reference where it must be, bounded memory."""

import ctypes
import gc
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.engine.engine_definitions import EngineUnavailable
from data_prep.engine.engines import Encoded, Engine, joined, one_thread, open_engine
from data_prep.errors import DataError
from data_prep.tokenizer.special_tokens import POLICIES, SpecialNames, refused
from data_prep.tokenizer.tokenizers import Tokenizer, refuse_surrogates

STATM = Path("/proc/self/statm")


class Encoder:
    """Texts to ids, with the ids of the tokenizer's reference implementation, at the speed of an engine.

    To the engine, names of special tokens are plain text. Where they shall become tokens, the texts that spell one go
    to the reference, which is slow.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        engine: str | Engine,
        special_in_text: str,
        max_growth_bytes: int | None = None,
    ) -> None:
        """Open the engine.

        Args:
            engine: the name in the record of `choose_engine`, or the engine that `choose_and_open` opened.
            special_in_text: one of `special_tokens.POLICIES`.
            max_growth_bytes: the engine is made anew when the process has grown by more since it was made; if not
                given, by more than the engine says.

        Raises:
            DataError: the engine cannot be opened.
        """
        assert special_in_text in POLICIES
        self.names = SpecialNames(tokenizer.special_tokens)
        self._tokenizer, self._policy = tokenizer, special_in_text
        self._name = engine if isinstance(engine, str) else engine.name
        self._max_growth_bytes = max_growth_bytes
        self._engine: Engine | None = None
        self._open(None if isinstance(engine, str) else engine)

    @property
    def batch_characters(self) -> int:
        """How much text is worth a call."""
        assert self._engine is not None
        return self._engine.batch_characters

    def encode(self, texts: Sequence[str]) -> Encoded:
        """The ids of `texts`, none added.

        Raises:
            DataError: a text is not Unicode, or spells a special token's name and the policy is `error`.
        """
        special = self.names.holds_special(texts) if self._policy != "split" else []
        if special and self._policy == "error":
            text = texts[special[0]]
            raise refused(self.names.first_name(text) or "", f"the text that begins {text[:60]!r}")
        encoded = self._mixed(texts, special) if special else self._fast(texts)
        if self._has_grown():
            _give_back_memory()  # one long text leaves much that is free, which is no reason to forget all words
            if self._has_grown():
                self._open()
        return encoded

    def recheck(self, texts: Sequence[str], encoded: Encoded, sample_indices: Sequence[int]) -> None:
        """Compare the ids of some of `texts` with the reference's.

        Raises:
            DataError: they differ.
        """
        sample = [texts[i] for i in sample_indices]
        ends = np.cumsum(encoded.lengths)
        for i, expected in zip(sample_indices, self._reference(sample), strict=True):
            found = encoded.ids[ends[i] - encoded.lengths[i] : ends[i]]
            if not np.array_equal(found, expected):
                raise DataError(
                    f"engine {self._name} gives other ids than the reference for the text that begins "
                    f"{texts[i][:60]!r}. Run again with --engine hf in a new folder, and report this text."
                )

    def _has_grown(self) -> bool:
        assert self._engine is not None
        allowed = self._engine.max_growth_bytes if self._max_growth_bytes is None else self._max_growth_bytes
        return _resident_bytes() - self._resident_bytes > allowed

    def _open(self, engine: Engine | None = None) -> None:
        self._engine = None
        _give_back_memory()
        try:
            self._engine = engine or open_engine(self._name, self._tokenizer)
        except EngineUnavailable as error:
            raise DataError(f"engine {self._name} cannot be used in this process: {error}.") from error
        _give_back_memory()
        self._resident_bytes = _resident_bytes()

    def _fast(self, texts: Sequence[str]) -> Encoded:
        assert self._engine is not None
        try:
            return self._engine.encode(texts)
        except (UnicodeError, TypeError):
            refuse_surrogates(texts)
            raise

    def _reference(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        with one_thread():  # its first call makes its pool of threads
            if self._policy == "encode":
                return self._tokenizer.encode_batch_with_special(texts)
            return self._tokenizer.encode_batch(texts)

    def _mixed(self, texts: Sequence[str], special: Sequence[int]) -> Encoded:
        """The texts at `special` by the reference, the others by the engine, in their order."""
        slow = dict(zip(special, self._reference([texts[i] for i in special]), strict=True))
        rest = self._fast([text for i, text in enumerate(texts) if i not in slow])
        fast = iter(np.split(rest.ids.view(np.int32), np.cumsum(rest.lengths)[:-1]))
        return joined([slow[i] if i in slow else next(fast) for i in range(len(texts))])


def _resident_bytes() -> int:
    """What the process occupies; 0 where the system does not say."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _give_back_memory() -> None:
    """Let the C library return freed memory to the system, which it keeps otherwise."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
