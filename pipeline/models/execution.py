"""How a model is run, beside what it is: its splitting, and what its layers keep for the backward pass."""

from dataclasses import dataclass
from typing import Literal

from pipeline.models.documents import ONE_DOCUMENT, Documents

Recompute = Literal["none", "selective", "full"]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the layers of a model are run on one rank.

    Attributes:
        tensor_parallel_size: ranks that share each layer's matrices.
        sequence_parallel: they share the sequence, too, outside of the matrix products.
        recompute: what is computed again in the backward pass: nothing, core attention, or whole layers.
        documents: what a decoder is told of the documents in a sample.
    """

    tensor_parallel_size: int = 1
    sequence_parallel: bool = False
    recompute: Recompute = "none"
    documents: Documents = ONE_DOCUMENT


UNSPLIT = Execution()
