"""Pairs of segments for a model that judges how they belong together, found with no index.

Source: `create_instances_from_document` of google-research/bert for next-sentence prediction (Devlin et al., "BERT",
2019), of google-research/albert for sentence order (Lan et al., "ALBERT", 2020).
"""

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.data.sentences import Chunk, Segment, Sentences
from pipeline.data.token_stream import TokenStream
from pipeline.errors import DataError
from pipeline.objectives.draws import Draws
from pipeline.objectives.samples import Pair

Ids = npt.NDArray[np.int64]
Kind = Literal["nsp", "sop"]

RANDOM_TRIES = 10  # for another document, as published
NEXT_TRIES = 10_000  # documents looked at after these, before the source is said to be empty


class SentencePairs:
    """The pairs of one source.

    In each epoch a chunk of sentences begins with each document, and at each place of a grid over the stream,
    `max_tokens` apart, with the sentence that lies there; the grid is shifted from epoch to epoch. So each token is
    read about once, and those of the first `max_tokens` of a document up to twice. A chunk has `max_tokens` tokens or
    a few more, or what its document has left; with probability `short_rate` it gets shorter. It is cut between two of
    its sentences, and both parts lose single tokens until they have no more than `max_tokens` together.

    - nsp: for half of the pairs, and where a chunk is a single sentence, the second segment is not the rest of the
      chunk but sentences of another document; labelled 1.
    - sop: half of the pairs are swapped; labelled 1. A single sentence is cut between tokens.

    Attributes:
        num_samples: pairs in each epoch.

    Args:
        max_tokens: of both segments together, at least 2.
        eod_id: ends documents, and is left out; None if nothing does.

    Raises:
        DataError: there is no other document for `nsp`.
    """

    def __init__(
        self,
        stream: TokenStream,
        *,
        max_tokens: int,
        seed: int,
        kind: Kind,
        short_rate: float = 0.1,
        eod_id: int | None,
    ) -> None:
        assert max_tokens >= 2
        assert 0 <= short_rate <= 1
        self._stream, self._max_tokens, self._kind = stream, max_tokens, kind
        self._short_rate, self._eod_id = short_rate, eod_id
        self._fewest = 1 if kind == "nsp" else 2  # tokens that a chunk must have
        self.num_samples = stream.num_documents + len(stream) // max_tokens if len(stream) else 0
        if kind == "nsp" and stream.num_documents == 1:
            raise DataError(
                f"{stream.shards.path} is one document, and next-sentence prediction (nsp) takes second segments from "
                "others. Give text of several documents, or predict the order of sentences (sop)."
            )
        self._draws = Draws(seed=seed, purpose="pairs")
        grid = Draws(seed=seed, purpose=f"phase of {stream.shards.fingerprint}")
        self._phase = lru_cache(lambda epoch: int(grid.of(epoch).random() * max_tokens) if epoch else 0)

    def read(self, *, epochs: Ids, ids: Ids, positions: Ids) -> list[Pair]:
        """The pairs `ids` of their epochs; `positions` key all random draws. All int64, shape (B,).

        Raises:
            DataError: the source has hardly any text.
        """
        samples = zip(epochs.tolist(), ids.tolist(), positions.tolist(), strict=True)
        return [self._pair(epoch, number, self._draws.of(position)) for epoch, number, position in samples]

    def _pair(self, epoch: int, sample: int, generator: np.random.Generator) -> Pair:
        number, position = self._place(epoch, sample)
        sentences = self._sentences(number)
        offset = 0 if position is None else position - sentences.start
        if sentences.num_tokens < self._fewest:
            number, sentences = self._other(number, generator)
        # At the very end of a document there are too few tokens.
        offset = min(offset, sentences.num_tokens - self._fewest)
        target = self._max_tokens
        if generator.random() < self._short_rate:
            target = _from(2, self._max_tokens, generator)
        chunk = sentences.chunk(offset, target=target, longest=self._max_tokens)
        if self._kind == "nsp":
            first, second, label = self._next_sentence(chunk, target, number, generator)
        else:
            first, second, label = _sentence_order(chunk, generator)
        first, second = _shortened(first, second, self._max_tokens, generator)
        return Pair(self._stream.read(*first), self._stream.read(*second), label)

    def _place(self, epoch: int, sample: int) -> tuple[int, int | None]:
        """The document of a sample, and where in the stream the sentence lies that begins it; None: the first one."""
        # Documents and places of the grid take turns, evenly, so that the first samples are a fair part of an epoch.
        number = sample * self._stream.num_documents // self.num_samples
        if (sample + 1) * self._stream.num_documents // self.num_samples > number:
            return number, None
        position = ((sample - number) * self._max_tokens + self._phase(epoch)) % len(self._stream)
        return self._stream.document_at(position), position

    def _next_sentence(
        self, chunk: Chunk, target: int, number: int, generator: np.random.Generator
    ) -> tuple[Segment, Segment, int]:
        first, rest = _parts(chunk, _cut_between(chunk, generator))
        if rest.length and generator.random() >= 0.5:
            return first, rest, 0
        return first, self._from_other(number, target - first.length, generator), 1

    def _from_other(self, number: int, target: int, generator: np.random.Generator) -> Segment:
        """Sentences of another document than `number`: from any on, until they have `target` tokens."""
        _, sentences = self._other(number, generator)
        sentence = _from(0, sentences.num_sentences - 1, generator)
        spare = sentences.sentence_length(sentence) - self._max_tokens
        # No sample holds all of a sentence that is so long: any of its tokens may be the first.
        entered = _from(0, spare, generator) if spare > 0 else 0
        offset = min(sentences.sentence_start(sentence) + entered, sentences.num_tokens - 1)
        chunk = sentences.chunk(offset, target=max(target, 1), longest=self._max_tokens)
        return Segment(chunk.start, chunk.ends[-1])

    def _other(self, number: int, generator: np.random.Generator) -> tuple[int, Sentences]:
        """Another document than `number`, with text enough for a sample."""
        count = self._stream.num_documents
        for _ in range(RANDOM_TRIES):
            other = _from(0, count - 1, generator)
            if other != number and (sentences := self._sentences(other)).num_tokens >= self._fewest:
                return other, sentences
        for step in range(1, min(count, NEXT_TRIES)):
            other = (number + step) % count
            if (sentences := self._sentences(other)).num_tokens >= self._fewest:
                return other, sentences
        raise DataError(
            f"{self._stream.shards.path} has hardly any text: no document but number {number}, or none of the "
            f"{NEXT_TRIES} after it, has {self._fewest} tokens, which a pair ({self._kind}) takes. Use other text."
        )

    def _sentences(self, number: int) -> Sentences:
        return Sentences(self._stream, number, self._eod_id)


def _from(lowest: int, highest: int, generator: np.random.Generator) -> int:
    """One of the whole numbers from `lowest` to `highest`, each as likely."""
    return lowest + int(generator.random() * (highest - lowest + 1))


def _cut_between(chunk: Chunk, generator: np.random.Generator) -> int:
    """Tokens of the sentences that go into the first segment: of one at least, and not of all if there are several."""
    return chunk.ends[0 if len(chunk.ends) == 1 else _from(0, len(chunk.ends) - 2, generator)]


def _sentence_order(chunk: Chunk, generator: np.random.Generator) -> tuple[Segment, Segment, int]:
    whole = chunk.ends[-1]
    cut = _cut_between(chunk, generator) if len(chunk.ends) > 1 else _from(1, whole - 1, generator)
    first, second = _parts(chunk, cut)
    return (second, first, 1) if generator.random() < 0.5 else (first, second, 0)


def _parts(chunk: Chunk, cut: int) -> tuple[Segment, Segment]:
    return Segment(chunk.start, cut), Segment(chunk.start + cut, chunk.ends[-1] - cut)


def _shortened(
    first: Segment, second: Segment, max_tokens: int, generator: np.random.Generator
) -> tuple[Segment, Segment]:
    """Both without as many tokens as they have too many together.

    As published, the longer one loses a token, the second if they are equal, its first or its last one by the toss of a
    coin, until they fit.
    """
    too_many = first.length + second.length - max_tokens
    if too_many <= 0:
        return first, second
    ahead = min(too_many, abs(first.length - second.length))
    shared = too_many - ahead
    of_first, of_second = shared // 2, shared - shared // 2
    if first.length > second.length:
        of_first += ahead
    else:
        of_second += ahead
    return _without(first, of_first, generator), _without(second, of_second, generator)


def _without(segment: Segment, count: int, generator: np.random.Generator) -> Segment:
    """The segment without `count` tokens, each of which is the first or the last one that is left."""
    at_front = int(np.count_nonzero(generator.random(count) < 0.5))
    return Segment(segment.start + at_front, segment.length - count)
