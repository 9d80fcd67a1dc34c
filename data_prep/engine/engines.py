"""Engines: libraries that turn texts into ids, behind one interface. Each uses one core of the machine.

To an engine, names of special tokens in a text are plain text: it is loaded without them. Which engine is right for a
tokenizer is found out by `engine_choice`, not assumed here.
"""

import contextlib
import importlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from data_prep.engine.engine_definitions import EngineUnavailable, failures_explained, plain_json, tiktoken_parts
from data_prep.tokenizer.tokenizers import Tokenizer

MAX_GROWTH_BYTES = 300_000_000
WARM_UP = ("the first call", "makes a pool of threads")
REFERENCE_PACKAGES = {"hf": "tokenizers", "sentencepiece": "sentencepiece"}


class Encoded(NamedTuple):
    """The ids of some texts, one text after the other.

    Attributes:
        ids: unsigned or signed 32-bit, shape (num_tokens,), contiguous; it may be read-only.
        lengths: tokens of each text, int64, shape (num_texts,).
    """

    ids: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]


class Engine(Protocol):
    """Texts to ids at the speed of one library.

    Attributes:
        max_growth_bytes: an engine keeps the words that it has seen. When the process has grown by this much, it is
            time to make the engine anew, so that a worker process stays below 600 MB.
        batch_characters: of text that are worth a call.
    """

    name: str
    version: str
    max_growth_bytes: int
    batch_characters: int

    def encode(self, texts: Sequence[str]) -> Encoded:
        """The ids of `texts`, as `Tokenizer.encode_batch` has them. What is raised for half a surrogate differs."""


def open_engine(name: str, tokenizer: Tokenizer) -> Engine:
    """The engine `name` for `tokenizer`; `hf` is the library that defines the tokenizer's ids, whichever that is.

    Raises:
        EngineUnavailable: it is not installed, or cannot load this tokenizer; the message says why.
    """
    if name in ("hf", tokenizer.kind):
        return ReferenceEngine(tokenizer)
    if name not in OPENERS:
        raise EngineUnavailable("it cannot load this kind of tokenizer" if name in NAMES else "there is no such engine")
    with one_thread(), failures_explained():
        engine = OPENERS[name](tokenizer)
        engine.encode(WARM_UP)
    return engine


class ReferenceEngine:
    """The library that defines the ids, as an engine."""

    batch_characters = 1

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.name = tokenizer.kind
        self.version = importlib.metadata.version(REFERENCE_PACKAGES[tokenizer.kind])
        self.max_growth_bytes = MAX_GROWTH_BYTES
        self._tokenizer = tokenizer
        with one_thread():
            tokenizer.encode_batch(WARM_UP)

    def encode(self, texts: Sequence[str]) -> Encoded:
        return joined(self._tokenizer.encode_batch(texts))


class Fastokens:
    """`fastokens`, for a tokenizer.json; its cache stays below half a GB."""

    name = "fastokens"
    max_growth_bytes = MAX_GROWTH_BYTES
    batch_characters = 1

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.version, module = _imported(self.name, "fastokens")
        self._model = module.Tokenizer.from_json_str(plain_json(tokenizer))

    def encode(self, texts: Sequence[str]) -> Encoded:
        ids, offsets = self._model.encode_batch_flat(texts, split_special_tokens=True)
        ends = np.frombuffer(offsets, np.int64)
        return Encoded(np.frombuffer(ids, np.uint32), ends[1:] - ends[:-1])


class Gigatoken:
    """`gigatoken`, for byte-level BPE and for SentencePiece's BPE; release 0.10 has a cache without bound."""

    name = "gigatoken"
    batch_characters = 4_000_000  # SentencePiece, MB/s: 34 with 0.5 million, 44 with 2, 47 with 8
    max_growth_bytes = 120_000_000  # below where its table doubles to 256 MB, beside the old one of 128

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.version, module = _imported(self.name, "gigatoken.gigatoken_rs")
        self._model = module.load_hf_json(plain_json(tokenizer))

    def encode(self, texts: Sequence[str]) -> Encoded:
        layout = self._model.encode_batch(texts, parallel=False).layout
        offsets = np.asarray(layout.offsets.data)
        return Encoded(np.asarray(layout.content.data)[offsets[0] : offsets[-1]], np.diff(offsets))


class Tiktoken:
    """`tiktoken`, for byte-level BPE whose order of merges is the order of ids."""

    name = "tiktoken"
    batch_characters = 1
    max_growth_bytes = MAX_GROWTH_BYTES

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.version, module = _imported(self.name, "tiktoken")
        pattern, ranks = tiktoken_parts(tokenizer)
        self._model = module.Encoding("", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def encode(self, texts: Sequence[str]) -> Encoded:
        return joined([self._model.encode_to_numpy(text, disallowed_special=()) for text in texts])


OPENERS: Mapping[str, Callable[[Tokenizer], Engine]] = {
    "fastokens": Fastokens,
    "gigatoken": Gigatoken,
    "tiktoken": Tiktoken,
}
NAMES = (*OPENERS, "sentencepiece", "hf")


def joined(encoded: Sequence[npt.NDArray[Any]]) -> Encoded:
    """The ids of single texts as one array."""
    lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
    return Encoded(np.concatenate(encoded) if encoded else np.empty(0, np.int32), lengths)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """In the block, libraries that make a thread for each core that they may use make one, and keep to it afterwards.

    Unlike pinning a process for good, this leaves the system free to move it to an idle core. Threads that started in
    the block may use all cores again after it.
    """
    if not hasattr(os, "sched_setaffinity"):  # not on Linux
        yield
        return
    cores, threads = os.sched_getaffinity(0), set(os.listdir("/proc/self/task"))
    os.sched_setaffinity(0, {sorted(cores)[os.getpid() % len(cores)]})  # processes that start together spread out
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        for thread in set(os.listdir("/proc/self/task")) - threads:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(thread), cores)


def _imported(package: str, module: str) -> tuple[str, Any]:
    """Version and module of a library that need not be installed."""
    try:
        return importlib.metadata.version(package), importlib.import_module(module)
    except (ImportError, importlib.metadata.PackageNotFoundError) as error:
        raise EngineUnavailable(f"it is not installed ({error})") from error
