"""Pairs of segments against the published rules, written out token by token, with the same draws.

The rules are those of BERT's and ALBERT's programs for a chunk that begins with a given sentence.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.sentence_pairs import Kind, SentencePairs
from pipeline.data.token_stream import TokenStream
from pipeline.objectives.draws import Draws
from pipeline.shards import find_shards
from tests.data_sets import write_data_set

Sentence = list[int]
LONGEST = 12

# Documents of more than one token, in sentences that are shorter than a sample.
lengths = st.lists(st.integers(1, LONGEST), min_size=1, max_size=15).filter(lambda lengths: sum(lengths) > 1)
corpora = st.lists(lengths, min_size=2, max_size=6)


def joined(sentences: list[Sentence]) -> Sentence:
    return [token for sentence in sentences for token in sentence]


class PublishedRule:
    """Chunks to pairs."""

    def __init__(
        self, documents: list[list[Sentence]], max_tokens: int, kind: Kind, draws: np.random.Generator
    ) -> None:
        self.documents, self.max_tokens, self.kind, self.draws = documents, max_tokens, kind, draws

    def randint(self, lowest: int, highest: int) -> int:
        return int(self.draws.random() * (highest - lowest + 1)) + lowest

    def pair(self, number: int, first_sentence: int) -> tuple[Sentence, Sentence, int]:
        target = self.max_tokens
        if self.draws.random() < 0.1:
            target = self.randint(2, self.max_tokens)
        chunk: list[Sentence] = []
        for sentence in self.documents[number][first_sentence:]:
            chunk.append(sentence)
            if sum(map(len, chunk)) >= target:
                break
        if self.kind == "sop":
            first, second, label = self.order(chunk)
        else:
            first, second, label = self.next(chunk, target, number)
        self.truncate(first, second)
        return first, second, label

    def next(self, chunk: list[Sentence], target: int, number: int) -> tuple[Sentence, Sentence, int]:
        end = self.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
        first = joined(chunk[:end])
        if len(chunk) > 1 and self.draws.random() >= 0.5:
            return first, joined(chunk[end:]), 0
        for _ in range(10):
            other = self.randint(0, len(self.documents) - 1)
            if other != number:
                break
        else:
            other = (number + 1) % len(self.documents)
        second: Sentence = []
        start = self.randint(0, len(self.documents[other]) - 1)
        for sentence in self.documents[other][start:]:
            second += sentence
            if len(second) >= target - len(first):
                break
        return first, second, 1

    def order(self, chunk: list[Sentence]) -> tuple[Sentence, Sentence, int]:
        if len(chunk) == 1:  # the published program makes these pairs of two documents
            cut = self.randint(1, len(chunk[0]) - 1)
            first, second = chunk[0][:cut], chunk[0][cut:]
        else:
            end = self.randint(1, len(chunk) - 1)
            first, second = joined(chunk[:end]), joined(chunk[end:])
        return (second, first, 1) if self.draws.random() < 0.5 else (first, second, 0)

    def truncate(self, first: Sentence, second: Sentence) -> None:
        sizes, steps = [len(first), len(second)], []
        while sum(sizes) > self.max_tokens:
            longer = 0 if sizes[0] > sizes[1] else 1
            sizes[longer] -= 1
            steps.append(longer)
        for which, segment in enumerate((first, second)):
            for _ in range(steps.count(which)):
                del segment[0 if self.draws.random() < 0.5 else -1]


@given(corpora, st.sampled_from(["nsp", "sop"]), st.integers(LONGEST, 60), st.integers(0, 2**40))
def test_pairs(corpus: list[list[int]], kind: Kind, max_tokens: int, seed: int) -> None:
    token, documents, places = 0, [], []  # places: the document and the sentence of each token
    for number, counts in enumerate(corpus):
        documents.append(
            [[*range(end - count, end)] for count, end in zip(counts, token + np.cumsum(counts), strict=True)]
        )
        places += [(number, sentence) for sentence, count in enumerate(counts) for _ in range(count)]
        token += sum(counts)
    with TemporaryDirectory() as folder:
        write_data_set(Path(folder), [documents], vocab_size=2**31, split_sentences="en")
        stream = TokenStream(find_shards(folder))
        pairs = SentencePairs(stream, max_tokens=max_tokens, seed=seed, kind=kind, eod_id=None)
        draws = Draws(seed=seed, purpose="pairs")
        # In the first epoch the places of the grid are multiples of `max_tokens`.
        grid = [place * max_tokens for place in range(token // max_tokens)]
        for sample in range(pairs.num_samples):
            before, after = (count * len(corpus) // pairs.num_samples for count in (sample, sample + 1))
            number, sentence = (before, 0) if after > before else places[grid[sample - before]]
            if after == before and kind == "sop" and grid[sample - before] + 1 == sum(map(sum, corpus[: number + 1])):
                _, sentence = places[grid[sample - before] - 1]  # the last token alone would not make two segments
            rule = PublishedRule(documents, max_tokens, kind, draws.of(sample))
            first, second, label = rule.pair(number, sentence)
            [found] = pairs.read(epochs=np.zeros(1, int), ids=np.array([sample]), positions=np.array([sample]))
            assert (found.first.tolist(), found.second.tolist(), found.label) == (first, second, label)
