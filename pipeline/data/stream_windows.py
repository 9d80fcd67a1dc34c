"""Samples as windows over the token stream of a source: found by arithmetic, with no index."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.data.token_stream import TokenStream
from pipeline.objectives.draws import Draws
from pipeline.objectives.samples import Windows

Ids = npt.NDArray[np.int64]


class StreamWindows:
    """Windows of `length` tokens, `stride` apart.

    In each epoch they start at another place, its phase, so that a document is not always cut where it was. The last
    one may go on with the first tokens of the stream.

    Attributes:
        num_samples: windows in each epoch.
    """

    def __init__(self, stream: TokenStream, *, length: int, stride: int, seed: int, finds_documents: bool) -> None:
        self.stream, self.length, self.stride = stream, length, stride
        self.num_samples = num_windows(len(stream), length=length, stride=stride)
        self._finds_documents = finds_documents
        draws = Draws(seed=seed, purpose=f"phase of {stream.shards.fingerprint}")
        self._phase = lru_cache(lambda epoch: int(draws.of(epoch).random() * stride) if epoch else 0)

    def read(self, *, epochs: Ids, ids: Ids, positions: Ids) -> Windows:  # noqa: ARG002 (nothing is drawn)
        """The windows `ids` of their epochs; all int64, shape (B,)."""
        phases = np.array([self._phase(epoch) for epoch in epochs.tolist()], np.int64)
        starts = ids * self.stride + phases
        return Windows(
            tokens=self.stream.gather(starts, self.length),
            lengths=np.full(len(ids), self.length, np.int64),
            starts_document=self._document_starts(starts) if self._finds_documents else None,
        )

    def _document_starts(self, starts: Ids) -> npt.NDArray[np.bool_]:
        found = np.zeros((len(starts), self.length), bool)
        for row, start in enumerate(starts.tolist()):
            found[row, self.stream.document_starts(start, self.length) - start] = True
        return found


def num_windows(num_tokens: int, *, length: int, stride: int) -> int:
    """Windows of `length` tokens, `stride` apart, that a stream of `num_tokens` tokens has."""
    return max(num_tokens - (length - stride), 0) // stride
