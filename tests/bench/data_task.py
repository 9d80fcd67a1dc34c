"""What the contenders of `bench_data.py` are to read, so that both sides are asked for the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Masking = Literal["token", "whole_word", "ngram"]

TOKENIZER, SENTENCES, DOCUMENTS = "tokenizer", "sentences", "documents"  # in the folder of a corpus
SHARD = "shard_00000"  # the only one of each data set
MAX_NGRAM = 3  # words, of `masking="ngram"`
SEED = 1234


@dataclass(frozen=True, kw_only=True)
class Task:
    """One objective, in the settings of a usual run.

    Attributes:
        masking: None where nothing is masked.
        pairs: whether a second segment is to be judged (next-sentence prediction).
    """

    name: str
    objective: Literal["causal", "masked", "span"]
    seq_len: int
    masking: Masking | None = None
    pairs: bool = False

    @property
    def data_set(self) -> str:
        """The name of what it reads. Both hold the same tokens; Megatron's masked data sets need sentences."""
        return DOCUMENTS if self.objective == "causal" else SENTENCES


CAUSAL = Task(name="causal", objective="causal", seq_len=2048)
MASKED = tuple(
    Task(
        name=f"masked, {masking.replace('_', ' ')}{', pairs' if pairs else ''}",
        objective="masked",
        seq_len=512,
        masking=masking,
        pairs=pairs,
    )
    for pairs in (False, True)
    for masking in ("token", "whole_word", "ngram")
)
SPAN = Task(name="span", objective="span", seq_len=512)
TASKS = {task.name: task for task in (CAUSAL, *MASKED, SPAN)}


class Reader(Protocol):
    """One side's samples, opened.

    Attributes:
        at_once: samples in each item of `stream`.
    """

    at_once: int

    def stream(self) -> Iterator[Mapping[str, Any]]:
        """The samples in the order in which training gets them, without end."""

    def input_tokens(self, item: Mapping[str, Any]) -> float:
        """Tokens of a sample's input that are not padding, special ones included; their mean in an item."""


class Open(Protocol):
    """Opens a task's data set in the folder of a corpus.

    Args:
        cache: a folder for what this side writes.
        at_once: samples that ours makes together.
        reading: how ours reads shards: mmap or pread.
    """

    def __call__(self, task: Task, folder: Path, *, cache: Path, at_once: int, reading: str) -> Reader: ...
