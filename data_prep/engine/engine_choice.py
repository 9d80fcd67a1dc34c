"""Which engine turns a corpus into ids: the fastest that gives the reference's ids, found out on texts, not assumed."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from data_prep.engine.engine_definitions import EngineUnavailable, failures_explained
from data_prep.engine.engines import NAMES, Encoded, Engine, joined, open_engine
from data_prep.engine.stress_texts import stress_texts
from data_prep.errors import DataError
from data_prep.tokenizer.tokenizers import Tokenizer

AUTO = "auto"
COMPARED_CHARACTERS = 200_000  # of the first documents: 0.1 s of the reference
EXCERPT_CHARACTERS = 60

# By kind of tokenizer and model, the fastest first (MB/s on one core; `hf` is the reference, 2 to 5).
ORDER: Mapping[tuple[str, str], Sequence[str]] = {
    ("hf", "bpe"): ("fastokens", "gigatoken", "tiktoken"),  # 160, 130 to 220 less its start, 10
    ("sentencepiece", "bpe"): ("gigatoken", "fastokens"),  # 48, 26
}
OTHER_ORDER = ("fastokens", "gigatoken")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One engine that was tried, and why it was refused: None if its ids are equal."""

    name: str
    refused: str | None


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """The engine of a data set, and what its choice rests on.

    Attributes:
        name: for `open_engine`; the library that defines the ids, where no other was equal or asked for.
        num_stress_texts: compared with the reference, as are the `num_documents` first documents of the corpus.
    """

    name: str
    version: str
    candidates: tuple[Candidate, ...]
    num_stress_texts: int
    num_documents: int


def choose_engine(name: str, tokenizer: Tokenizer, first_documents: Sequence[str]) -> EngineRecord:
    """The engine `name`, or with `auto` the first in the order of speed, that has the reference's ids.

    Compared are all of `stress_texts` and as many of `first_documents` as COMPARED_CHARACTERS allow.

    Raises:
        DataError: the engine asked for does not exist, cannot be used here, or has other ids.
    """
    return choose_and_open(name, tokenizer, first_documents)[0]


def choose_and_open(name: str, tokenizer: Tokenizer, first_documents: Sequence[str]) -> tuple[EngineRecord, Engine]:
    """As `choose_engine`, and the engine itself, which a process that goes on with it need not open again."""
    if name not in (AUTO, *NAMES):
        raise DataError(f"--engine {name} is not known. Choose {AUTO} or one of {', '.join(NAMES)}.")
    names = (*ORDER.get((tokenizer.kind, tokenizer.model_type), OTHER_ORDER), "hf") if name == AUTO else (name,)
    candidates: list[Candidate] = []
    with _Trial(tokenizer, first_documents, needed=names[0] not in ("hf", tokenizer.kind)) as trial:
        for one in names:
            try:
                if one in ("hf", tokenizer.kind):
                    trial.finish()  # the library takes one call at a time
                engine = open_engine(one, tokenizer)
                with failures_explained():
                    refused = trial.difference(engine)
            except EngineUnavailable as error:
                candidates.append(Candidate(name=one, refused=str(error)))
                continue
            candidates.append(Candidate(name=engine.name, refused=refused))
            if refused is None:
                return trial.record(engine, candidates), engine
    raise DataError(
        f"--engine {name} cannot be used with {tokenizer.path}: {candidates[-1].refused}. "
        f"Choose {AUTO}, or hf, which is slow but always right."
    )


class _Trial:
    """The texts and the reference's ids of them, which are made while the first engine is loaded."""

    def __init__(self, tokenizer: Tokenizer, first_documents: Sequence[str], *, needed: bool) -> None:
        self._tokenizer = tokenizer
        self._stress = stress_texts(tokenizer) if needed else []
        self._texts = [*self._stress, *_beginning(first_documents)] if needed else []
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        self._expected = self._thread.submit(lambda: joined(self._tokenizer.encode_batch(self._texts)))
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def finish(self) -> Encoded:
        """The reference's ids."""
        return self._expected.result()

    def difference(self, engine: Engine) -> str | None:
        """How the ids of `engine` differ from the reference's; None if they do not.

        The texts are encoded twice, as engines keep words that they have seen.
        """
        if engine.name == self._tokenizer.kind:
            return None
        for _ in range(2):
            different = first_difference(engine.encode(self._texts), self.finish())
            if different is not None:
                excerpt = _excerpt(self._texts[different], engine, self._tokenizer)
                return f"its ids differ from the reference's for {excerpt}"
        return None

    def record(self, engine: Engine, candidates: Sequence[Candidate]) -> EngineRecord:
        compared = engine.name != self._tokenizer.kind
        return EngineRecord(
            name=engine.name,
            version=engine.version,
            candidates=tuple(candidates),
            num_stress_texts=len(self._stress) if compared else 0,
            num_documents=len(self._texts) - len(self._stress) if compared else 0,
        )


def first_difference(found: Encoded, expected: Encoded) -> int | None:
    """The index of the first text whose ids are not equal."""
    if np.array_equal(found.lengths, expected.lengths) and np.array_equal(found.ids, expected.ids):
        return None
    pairs = zip(_split(found), _split(expected), strict=True)
    return next(i for i, (one, other) in enumerate(pairs) if not np.array_equal(one, other))


def _split(encoded: Encoded) -> list[npt.NDArray[Any]]:
    return np.split(encoded.ids, np.cumsum(encoded.lengths)[:-1])


def _beginning(documents: Sequence[str]) -> Iterator[str]:
    """The first COMPARED_CHARACTERS of them, the last text cut to fit."""
    left = COMPARED_CHARACTERS
    for text in documents:
        if left <= 0:
            return
        yield text[:left]
        left -= len(text)


def _excerpt(text: str, engine: Engine, tokenizer: Tokenizer) -> str:
    """The text around the first id that differs."""
    found, expected = engine.encode([text]).ids, tokenizer.encode_batch([text])[0]
    shorter = min(len(found), len(expected))
    different = np.flatnonzero(found[:shorter] != expected[:shorter])
    token = int(different[0]) if len(different) else shorter
    start = max(len(tokenizer.decode(expected[:token])) - EXCERPT_CHARACTERS // 2, 0)
    return repr(text[start : start + EXCERPT_CHARACTERS])
