"""The sentences of one document, found where they lie in the index, however many there are."""

from bisect import bisect_right
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.data.token_stream import TokenStream


class Segment(NamedTuple):
    """Tokens that lie one after the other in a stream: where the first is, and how many there are."""

    start: int
    length: int


class Chunk(NamedTuple):
    """Sentences that lie one after the other.

    Attributes:
        start: of the first token in the stream.
        ends: where each sentence ends, in tokens from `start`; ascending. None is empty.
    """

    start: int
    ends: list[int]


class Sentences:
    """The sentences of document `number` of `stream`: its sequences, without the token that ends the document.

    Attributes:
        start: of its first token in the stream.
        num_tokens: in all sentences.
        num_sentences: counts empty ones, too.
    """

    def __init__(self, stream: TokenStream, number: int, eod_id: int | None) -> None:
        document = stream.document(number)
        self.start = document.start
        self._lengths, self._places = document.sequence_lengths, document.sequence_places
        self._item_bytes = stream.dtype.itemsize
        self.num_sentences = len(self._lengths)
        self.num_tokens = 0
        if self.num_sentences:
            self.num_tokens = self.sentence_start(-1) + int(self._lengths[-1])
        if self.num_tokens and stream.read(self.start + self.num_tokens - 1, 1)[0] == eod_id:
            self.num_tokens -= 1

    def sentence_start(self, sentence: int) -> int:
        """Where a sentence starts, in tokens from the start of the document."""
        return int(self._places[sentence] - self._places[0]) // self._item_bytes

    def sentence_length(self, sentence: int) -> int:
        """Tokens in a sentence, the end of the document included."""
        return int(self._lengths[sentence])

    def chunk(self, offset: int, *, target: int, longest: int) -> Chunk:
        """Sentences from the one that holds token `offset` on, until they have `target` tokens or the document ends.

        A sentence of more than `longest` tokens, which no sample holds whole, is no unit: if it is the first, it starts
        at `offset`; what goes beyond `longest` is left out.

        Args:
            offset: in tokens from the start of the document, less than `num_tokens`.
            target: `longest` at most.
        """
        # `bisect`, not `searchsorted`: the tables of an .idx are not aligned, and NumPy would copy them whole.
        sentence = bisect_right(self._places, self._places[0] + offset * self._item_bytes) - 1
        start = self.sentence_start(sentence)
        entered = offset - start if self._lengths[sentence] > longest else 0
        count = target  # enough of them, unless some are empty
        sums = self._sums(sentence, count) - entered
        while sums[-1] < target and sentence + count < self.num_sentences:
            count *= 2
            sums = self._sums(sentence, count) - entered
        ends = sums[: np.searchsorted(sums, target) + 1].tolist()
        before_last = ends[-2] if len(ends) > 1 else 0
        ends[-1] = min(ends[-1], before_last + longest)
        left = self.num_tokens - start - entered
        return Chunk(self.start + start + entered, sorted({min(end, left) for end in ends}))

    def _sums(self, sentence: int, count: int) -> npt.NDArray[np.int64]:
        """Where `count` sentences from `sentence` on end, or as many as there are; in tokens from its start."""
        return np.cumsum(self._lengths[sentence : sentence + count], dtype=np.int64)
