"""Next-token prediction: a window of tokens to inputs and labels.

Dims: B samples, S positions of the model.
"""

import numpy as np
import numpy.typing as npt

from pipeline.objectives.fim import Fim
from pipeline.objectives.samples import IGNORED, Batch, Windows


def window_length(seq_len: int) -> int:
    """Tokens that one sample of `seq_len` positions reads."""
    return seq_len + 1


def inputs_and_labels(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Model inputs and the token to predict at each position, both int64.

    Args:
        windows: token ids of any integer dtype, shape (batch, seq_len + 1).

    Returns:
        Two arrays of shape (batch, seq_len): labels[:, i] follows inputs[:, i].
    """
    wide = windows.astype(np.int64)
    return wide[:, :-1], wide[:, 1:]


class Causal:
    """The objective of decoders.

    Args:
        fim: moves middles of documents behind their ends; None leaves texts as they are.
        reset_positions: position ids begin at 0 in each document.
        within_documents: documents do not see each other, and none is asked for the first token of the next.
    """

    def __init__(
        self, *, seq_len: int, fim: Fim | None = None, reset_positions: bool = False, within_documents: bool = False
    ) -> None:
        self.window_length = window_length(seq_len)
        self.needs_documents = fim is not None or reset_positions or within_documents
        self._fim, self._reset_positions, self._within_documents = fim, reset_positions, within_documents

    def batch(self, raw: Windows, positions: npt.NDArray[np.int64]) -> Batch:
        """`input_ids` and `labels`, shape (B, S); views of one array where no label is ignored.

        With `reset_positions` also `position_ids`, with `within_documents` also `document_ids`: the documents of a
        sample are numbered 0, 1, 2 and so on. Both are of shape (B, S).

        Args:
            raw: of `window_length` tokens, with `starts_document` if `needs_documents`.
        """
        if self._fim is not None:
            raw = self._fim.apply(raw, positions)
        tokens = raw.tokens.astype(np.int32, copy=False)
        batch: Batch = {"input_ids": tokens[:, :-1], "labels": tokens[:, 1:]}
        self._ignore(batch, raw)
        if self._reset_positions:
            batch["position_ids"] = _positions(_starts(raw)[:, :-1])
        if self._within_documents:
            batch["document_ids"] = _documents(_starts(raw)[:, :-1])
        return batch

    def _ignore(self, batch: Batch, raw: Windows) -> None:
        width = raw.tokens.shape[1]
        ignored = np.zeros((), np.bool_)
        if (raw.lengths < width).any():
            ignored = np.arange(1, width) >= raw.lengths[:, None]
        if self._within_documents:
            ignored = ignored | _starts(raw)[:, 1:]
        if ignored.any():
            batch["labels"] = np.where(ignored, np.int32(IGNORED), batch["labels"])


def _starts(raw: Windows) -> npt.NDArray[np.bool_]:
    """Where documents begin, in which what a window begins with counts as one; shape (B, S + 1)."""
    assert raw.starts_document is not None, "the reader must mark where documents begin"
    starts = raw.starts_document.copy()
    starts[:, 0] = True
    return starts


def _positions(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """How far each token is from the beginning of its document, shape (B, S)."""
    begins = np.flatnonzero(starts).astype(np.int32)
    lengths = np.diff(begins, append=starts.size)
    return (np.arange(starts.size, dtype=np.int32) - np.repeat(begins, lengths)).reshape(starts.shape)


def _documents(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Which of its sample's documents each token belongs to, shape (B, S)."""
    per_sample = starts.sum(axis=1)
    before = np.repeat(np.cumsum(per_sample) - per_sample, per_sample)
    numbers = (np.arange(len(before)) - before).astype(np.int32)
    return np.repeat(numbers, np.diff(np.flatnonzero(starts), append=starts.size)).reshape(starts.shape)
