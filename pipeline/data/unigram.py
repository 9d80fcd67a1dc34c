"""The loss of the language model that knows only how frequent each token is: the bar that training must clear."""

from pathlib import Path

import numpy as np

from pipeline.data.stream_windows import num_windows
from pipeline.data.token_stream import TokenStream
from pipeline.errors import DataError
from pipeline.shards import find_shards

CHUNK_TOKENS = 2**24


def unigram_loss(train: Path, heldout: Path, *, vocab_size: int, seq_len: int, samples: int | None = None) -> float:
    """Nats per token of the held-out targets under the add-one-smoothed frequencies of the training tokens.

    Args:
        seq_len: the targets are those of whole windows of this length, as an evaluation of the model has them.
        samples: windows to use, the first ones; None takes all.

    Raises:
        DataError: a data set is missing or damaged, or `heldout` holds no whole window.
    """
    stream = TokenStream(find_shards(str(heldout)))
    windows = windows_to_use(stream, seq_len=seq_len, samples=samples)
    counts = _counts(TokenStream(find_shards(str(train))), 0, None, vocab_size)
    targets = _counts(stream, 1, 1 + windows * seq_len, vocab_size)
    log_probabilities = np.log(counts + 1.0) - np.log(counts.sum() + vocab_size)
    return float(-(targets * log_probabilities).sum() / targets.sum())


def windows_to_use(stream: TokenStream, *, seq_len: int, samples: int | None = None) -> int:
    """Windows of `seq_len` targets that an evaluation on `stream` uses.

    Raises:
        DataError: there is not one, or there are fewer than `samples`.
    """
    available = num_windows(len(stream), length=seq_len + 1, stride=seq_len)
    wanted = available if samples is None else samples
    if not 1 <= wanted <= available:
        raise DataError(
            f"{stream.shards.path} has {len(stream)} tokens, that is {available} windows of {seq_len} and the token "
            f"after; {max(wanted, 1)} are needed. Give more text" + (", or fewer samples." if samples else ".")
        )
    return wanted


def _counts(stream: TokenStream, start: int, end: int | None, vocab_size: int) -> np.ndarray:
    """How often each id occurs at `start` to `end`, int64, shape (vocab_size,)."""
    end = len(stream) if end is None else end
    counts = np.zeros(vocab_size, dtype=np.int64)
    for position in range(start, end, CHUNK_TOKENS):
        found = np.bincount(stream.read(position, min(CHUNK_TOKENS, end - position)), minlength=vocab_size)
        if len(found) > vocab_size:
            raise DataError(f"a data set holds id {len(found) - 1} but the vocabulary has {vocab_size} ids")
        counts += found
    return counts
