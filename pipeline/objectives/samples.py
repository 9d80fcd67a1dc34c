"""What objectives are given, and what they make of it.

Dims: B samples, L tokens that one sample reads, S positions of the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

IGNORED = -100  # a label that no loss counts, as in torch and transformers

Batch = dict[str, npt.NDArray[Any]]
"""The model's inputs and labels by transformers' names: int32, masks bool, each of shape (B, S) or (B,)."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Tokens that lie one after the other in a source, or were packed.

    Attributes:
        tokens: ids in the dtype of the shards, shape (B, L).
        lengths: how many of them are text, int64, shape (B,); what follows is filling, to be ignored.
        starts_document: whether a document begins at a token, bool, shape (B, L); None unless it was asked for.
    """

    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    starts_document: npt.NDArray[np.bool_] | None = None


class Pair(NamedTuple):
    """Two segments for a model that judges how they belong together.

    Attributes:
        first, second: token ids, shape (num_tokens,), without special tokens.
        label: 0 if `second` follows `first`, 1 if it does not.
    """

    first: npt.NDArray[Any]
    second: npt.NDArray[Any]
    label: int


Pairs = Sequence[Pair]
Raw = TypeVar("Raw", Windows, Pairs, contravariant=True)


class Objective(Protocol[Raw]):
    """Turns what was read into inputs and labels."""

    def batch(self, raw: Raw, positions: npt.NDArray[np.int64]) -> Batch:
        """Inputs and labels.

        Args:
            positions: of the samples in the run's order, which key all random draws; int64, shape (B,).
        """
