"""The sequences of a batch, a document each or its sentences: what becomes of empty ones, and where documents end."""

from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.text.document import Batch


def num_filled(lengths: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many sequences of each document have tokens, shape (num_documents,).

    Args:
        lengths: of all sequences, in tokens, shape (num_sequences,).
        counts: sequences of each document, shape (num_documents,).
    """
    filled = np.cumsum(np.concatenate([[0], lengths > 0]), dtype=np.int64)
    return np.diff(filled[np.cumsum(np.concatenate([[0], counts]), dtype=np.int64)])


def drop_empty(batch: Batch, counts: npt.NDArray[np.int64]) -> None:
    """Count texts of which the tokenizer makes nothing, such as white space under WordPiece, as empty.

    Args:
        counts: sequences with tokens of each document.
    """
    kept = np.flatnonzero(counts)
    if len(kept) < len(counts):
        batch.counters.empty += len(counts) - len(kept)
        batch.keep(kept.tolist())


def with_ending(
    ids: npt.NDArray[Any],
    lengths: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    ending: int | None,
    dtype: np.dtype[Any],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """The tokens with the id `ending` behind each document, in `dtype`, and the lengths of their sequences.

    Args:
        ids: shape (num_tokens,), one sequence after the other.
        lengths: of the sequences, shape (num_sequences,).
        counts: sequences of each document, one at least, shape (num_documents,).
    """
    if ending is None:
        return ids, lengths
    last = np.cumsum(counts) - 1
    lengths = lengths.copy()
    lengths[last] += 1
    ends = np.cumsum(lengths)[last] - 1
    result = np.empty(len(ids) + len(counts), dtype)
    is_token = np.ones(len(result), bool)
    is_token[ends] = False
    result[is_token] = ids
    result[ends] = ending
    return result, lengths
