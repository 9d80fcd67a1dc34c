"""Next-token prediction: a window of tokens to inputs and labels."""

import numpy as np


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
