"""Pairs of segments: of whose text they are, how they are cut, and how often each token is read."""

import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.sentence_pairs import Kind, SentencePairs
from pipeline.data.sentences import Sentences
from pipeline.data.token_stream import TokenStream
from pipeline.errors import DataError
from pipeline.objectives.samples import Pair
from pipeline.shards import find_shards
from tests.data_sets import write_data_set
from tests.unit.pipeline.objectives import chi_square

VOCAB_SIZE = 10_000_000
END = 0
KINDS: tuple[Kind, ...] = ("nsp", "sop")

Corpus = Sequence[Sequence[int]]  # the tokens in each sentence of each document

documents = st.lists(st.integers(0, 30), max_size=12)
corpora = st.lists(documents, min_size=2, max_size=8).filter(
    lambda corpus: sum(sum(document) > 1 for document in corpus) > 1
)


class Text:
    """A data set in which every token is another one: its place in the text, from 1 on. Documents end with `END`."""

    def __init__(self, folder: Path, corpus: Corpus, *, with_end: bool = True, num_shards: int = 1) -> None:
        self.documents: list[list[list[int]]] = []
        self.document_of: dict[int, int] = {}
        self.sentence_starts: set[int] = set()
        self.sentence_ends: set[int] = set()
        token = 1
        for number, lengths in enumerate(corpus):
            sentences = []
            for length in lengths:
                sentence = [*range(token, token + length)]
                token += length
                sentences.append(sentence)
                self.sentence_starts.update(sentence[:1])
                self.sentence_ends.update(sentence[-1:])
                self.document_of |= dict.fromkeys(sentence, number)
            self.documents.append(sentences)
        stored = [[*document[:-1], [*(document or [[]])[-1], END]] for document in self.documents]
        if not with_end:
            stored = self.documents
        shards = [stored[index::num_shards] for index in range(num_shards)]
        write_data_set(folder, shards, vocab_size=VOCAB_SIZE, eod_id=END if with_end else None, split_sentences="en")
        self.stream = TokenStream(find_shards(str(folder)))
        self.eod_id = END if with_end else None

    def pairs(self, kind: Kind, max_tokens: int, *, seed: int = 0, short_rate: float = 0.1) -> SentencePairs:
        return SentencePairs(
            self.stream, max_tokens=max_tokens, seed=seed, kind=kind, short_rate=short_rate, eod_id=self.eod_id
        )


MakeText = Callable[..., Text]


@pytest.fixture
def make_text(tmp_path: Path) -> MakeText:
    return lambda corpus, **options: Text(tmp_path / "data", corpus, **options)


def read_epoch(pairs: SentencePairs, epoch: int, *, start: int = 0) -> list[Pair]:
    count = pairs.num_samples
    return pairs.read(epochs=np.full(count, epoch), ids=np.arange(count), positions=np.arange(start, start + count))


def check_pair(text: Text, pair: Pair, kind: Kind, max_tokens: int) -> None:
    first, second = pair.first.tolist(), pair.second.tolist()
    assert first
    assert second
    assert len(first) + len(second) <= max_tokens
    for segment in (first, second):
        assert segment == [*range(segment[0], segment[0] + len(segment))], "a segment is text without gaps"
        assert len({text.document_of[token] for token in segment}) == 1, "a segment is of one document, without its end"
    same_document = text.document_of[first[0]] == text.document_of[second[0]]
    assert same_document == (kind == "sop" or pair.label == 0)
    if same_document:
        before, after = (second, first) if pair.label else (first, second)
        assert before[-1] < after[0]
        if len(first) + len(second) < max_tokens:  # nothing was cut off
            assert before[-1] + 1 == after[0], "the second segment is the next text"


@given(corpora, st.sampled_from(KINDS), st.integers(2, 60), st.integers(0, 5), st.booleans(), st.integers(1, 2))
def test_pairs_are_of_the_text_that_their_label_says(
    corpus: Corpus, kind: Kind, max_tokens: int, epoch: int, with_end: bool, num_shards: int
) -> None:
    with TemporaryDirectory() as folder:
        text = Text(Path(folder), corpus, with_end=with_end, num_shards=num_shards)
        pairs = text.pairs(kind, max_tokens)
        assert pairs.num_samples == text.stream.num_documents + len(text.stream) // max_tokens
        for pair in read_epoch(pairs, epoch):
            check_pair(text, pair, kind, max_tokens)


@given(corpora, st.sampled_from(KINDS), st.integers(31, 80))
def test_segments_are_whole_sentences_before_they_are_cut(corpus: Corpus, kind: Kind, max_tokens: int) -> None:
    with TemporaryDirectory() as folder:
        text = Text(Path(folder), corpus)
        for pair in read_epoch(text.pairs(kind, max_tokens), 1):
            if len(pair.first) + len(pair.second) < max_tokens:
                both = [pair.second, pair.first] if kind == "sop" and pair.label else [pair.first, pair.second]
                assert both[0][0] in text.sentence_starts
                assert both[1][-1] in text.sentence_ends
                # Sentence order cuts a single sentence in two.
                whole = both[0][-1] in text.sentence_ends and both[1][0] in text.sentence_starts
                single = not text.sentence_ends.intersection(both[0].tolist())
                assert whole or (kind == "sop" and single)


@given(corpora, st.sampled_from(KINDS), st.integers(2, 40), st.integers(0, 9))
def test_a_pair_depends_on_its_epoch_id_and_position_alone(
    corpus: Corpus, kind: Kind, max_tokens: int, epoch: int
) -> None:
    with TemporaryDirectory() as folder:
        pairs = Text(Path(folder), corpus).pairs(kind, max_tokens)
        together = read_epoch(pairs, epoch, start=2**40)
        for number, expected in reversed([*enumerate(together)]):
            [alone] = pairs.read(epochs=np.array([epoch]), ids=np.array([number]), positions=np.array([2**40 + number]))
            assert np.array_equal(alone.first, expected.first)
            assert np.array_equal(alone.second, expected.second)
            assert alone.label == expected.label


def test_another_position_or_seed_makes_another_pair(make_text: MakeText) -> None:
    text = make_text([[1] * 300, [1] * 300])
    zeros, positions = np.zeros(50, int), np.arange(50)
    found = [
        {(pair.label, *pair.first.tolist(), *pair.second.tolist()) for pair in pairs}
        for pairs in (
            text.pairs("nsp", 300, seed=seed).read(epochs=zeros, ids=zeros, positions=positions) for seed in (0, 1)
        )
    ]
    # Where the second segment is the next one, it shows no difference.
    assert min(map(len, found)) > 20
    assert len(found[0] & found[1]) < 3


def test_an_epoch_begins_chunks_at_each_document_and_at_a_grid(make_text: MakeText) -> None:
    """Sentences of one token fill chunks to the token, so what both segments begin with shows where the chunk does."""
    text = make_text([[1] * length for length in (3, 100, 7, 55, 2)], with_end=False)
    pairs = text.pairs("sop", 10, short_rate=0)
    beginnings = {document[0][0] for document in text.documents}
    size = len(text.stream)
    last = {document[-1][0] for document in text.documents}
    for epoch in range(30):
        starts = Counter(min(pair.first[0], pair.second[0]) for pair in read_epoch(pairs, epoch))
        # Tokens count from 1. A chunk at the last token of a document would have one token: it begins one before.
        grids = [
            Counter(place - (place in last) for place in (1 + (phase + 10 * step) % size for step in range(size // 10)))
            for phase in range(10)
        ]
        assert starts - Counter(beginnings) in grids
        if epoch == 0:
            assert starts - Counter(beginnings) == grids[0]


def test_the_first_samples_are_a_fair_part_of_an_epoch(make_text: MakeText) -> None:
    text = make_text([[1] * 100] * 40, with_end=False)
    pairs = text.pairs("sop", 20, short_rate=0)
    begun = [min(pair.first[0], pair.second[0]) for pair in read_epoch(pairs, 0)]
    for part in range(0, pairs.num_samples, 24):  # 4 documents and 20 places of the grid
        assert sum(token % 100 == 1 for token in begun[part : part + 24]) == pytest.approx(8, abs=1)
        assert min(begun[part : part + 24]) > part / pairs.num_samples * 4000 - 120


def test_tokens_are_read_about_as_often(make_text: MakeText) -> None:
    """Each once an epoch, the first `max_tokens` of a document up to twice, by the phase of the grid."""
    max_tokens, epochs = 20, 400
    corpus = [[1] * length for length in (5, 300, 40, 12, 1203)]  # 1,560 tokens: a whole number of places
    text = make_text(corpus, with_end=False)
    pairs = text.pairs("sop", max_tokens, short_rate=0)
    counts = Counter(
        int(token)
        for epoch in range(epochs)
        for pair in read_epoch(pairs, epoch)
        for token in (*pair.first, *pair.second)
    )
    for document in text.documents:
        for offset, [token] in enumerate(document[:-2]):  # the last but one begins the chunks of the last one too
            share = min(1, (offset + 1) / max_tokens)
            expected = epochs * ((offset < max_tokens) + share)
            # Five standard deviations of a binomial count: exceeded by one of 1,560 once in 1,100 times.
            assert abs(counts[token] - expected) <= 5 * (epochs * share * (1 - share)) ** 0.5


def test_short_documents_are_read_as_often_as_long_ones(make_text: MakeText) -> None:
    """Whatever their sentences are; without the segments that are drawn from other documents."""
    generator = np.random.default_rng(0)
    corpus = [generator.integers(1, 9, count).tolist() for count in (2, 3, 5, 8, 13, 40, 100, 400)]
    text = make_text(corpus)
    pairs = text.pairs("sop", 64, short_rate=0)
    counts = Counter(
        text.document_of[int(token)]
        for epoch in range(100)
        for pair in read_epoch(pairs, epoch)
        for token in (*pair.first, *pair.second)
    )
    rates = [counts[number] / 100 / sum(lengths) for number, lengths in enumerate(corpus)]
    assert min(rates) > 0.9
    assert max(rates) < 2.1


def test_half_of_the_pairs_are_next_and_a_tenth_is_short(make_text: MakeText) -> None:
    """Documents of so many sentences of one token that there are several in each chunk, and none ends early."""
    text = make_text([[1] * 4000, [1] * 4000], with_end=False)
    max_tokens, count = 50, 4000
    for kind in KINDS:
        pairs = text.pairs(kind, max_tokens)
        ids = np.arange(count) % 70  # so that none begins near the end of its document
        found = pairs.read(epochs=np.zeros(count, int), ids=ids, positions=np.arange(count))
        # Five standard deviations: once in 1.7 million times.
        assert abs(sum(pair.label for pair in found) - count / 2) < 5 * (count / 4) ** 0.5
        lengths = Counter(len(pair.first) + len(pair.second) for pair in found)
        targets = [lengths[length] for length in range(2, max_tokens + 1)]
        shares = [0.1 / 49] * 48 + [0.9 + 0.1 / 49]
        if kind == "sop":  # the second document of the others may end before
            assert chi_square.fits(targets, shares)
            cuts = Counter(len(pair.first) for pair in found if len(pair.first) + len(pair.second) == max_tokens)
            assert chi_square.fits([cuts[length] for length in range(1, max_tokens)], [1.0] * (max_tokens - 1))


def test_other_documents_are_drawn_by_number_and_their_sentences_too(make_text: MakeText) -> None:
    corpus = [[1] * 3000, [1, 2, 3, 4], [5, 6], [50, 40, 30, 20, 10]]
    text = make_text(corpus)
    pairs = text.pairs("nsp", 200, short_rate=0)
    count = 4000
    found = pairs.read(epochs=np.zeros(count, int), ids=np.zeros(count, int), positions=np.arange(count))
    drawn = Counter(text.document_of[int(pair.second[0])] for pair in found if pair.label)
    assert chi_square.fits([drawn[number] for number in range(4)], [0, 1, 1, 1])
    starts = Counter(int(pair.second[0]) for pair in found if pair.label and text.document_of[int(pair.second[0])] == 1)
    assert chi_square.fits([starts[sentence[0]] for sentence in text.documents[1]], [1.0] * 4)


def test_a_sentence_longer_than_a_sample_is_read_everywhere(make_text: MakeText) -> None:
    """As the text of a document that was not split. What surrounds it is read, too."""
    text = make_text([[3, 1000, 5], [4, 4]])
    for kind in KINDS:
        pairs = text.pairs(kind, 20)
        seen: set[int] = set()
        for epoch in range(60):
            for pair in read_epoch(pairs, epoch, start=1000 * epoch):
                check_pair(text, pair, kind, 20)
                seen.update(pair.first.tolist(), pair.second.tolist())
        assert seen == {*text.document_of}


def test_a_long_sentence_of_another_document_begins_anywhere(make_text: MakeText) -> None:
    pairs = make_text([[1] * 100, [119]], with_end=False).pairs("nsp", 20, short_rate=0)
    count = 4000
    found = pairs.read(epochs=np.zeros(count, int), ids=np.zeros(count, int), positions=np.arange(count))
    starts = Counter(int(pair.second[0]) - 101 for pair in found if pair.label and len(pair.first) == 1)
    assert len(starts) > 50
    assert min(starts) < 10
    assert max(starts) > 90


def test_next_sentences_take_another_document(make_text: MakeText) -> None:
    text = make_text([[3, 4, 5]])
    with pytest.raises(DataError, match="is one document"):
        text.pairs("nsp", 20)
    for pair in read_epoch(text.pairs("sop", 6), 0):
        check_pair(text, pair, "sop", 6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_end", [False, True])
def test_documents_without_text_for_a_sample_are_replaced(make_text: MakeText, kind: Kind, with_end: bool) -> None:
    corpus = [[], [1], [0, 0], [0, 1, 0], [1, 1], [], [0, 0, 2, 0], [0]]
    text = make_text(corpus, with_end=with_end)
    for epoch in range(20):
        for pair in read_epoch(text.pairs(kind, 4), epoch):
            check_pair(text, pair, kind, 4)


@pytest.mark.parametrize(
    ("kind", "corpus"), [("sop", [[1], [1], [0, 1]]), ("nsp", [[], [5, 5], [0]]), ("nsp", [[], []])]
)
def test_text_that_makes_no_pair_is_refused(make_text: MakeText, kind: Kind, corpus: Corpus) -> None:
    with pytest.raises(DataError, match="hardly any text"):
        read_epoch(make_text(corpus).pairs(kind, 4), 0)


def test_no_tokens_make_no_samples(make_text: MakeText) -> None:
    assert make_text([[], []], with_end=False).pairs("sop", 4).num_samples == 0


def test_a_document_of_many_sentences_costs_no_more_than_another(tmp_path: Path) -> None:
    sentence = [7, 8]
    write_data_set(tmp_path / "data", [[[sentence] * 300_000, [sentence] * 3]], split_sentences="en")
    stream = TokenStream(find_shards(str(tmp_path / "data")))
    for kind in KINDS:
        pairs = SentencePairs(stream, max_tokens=100, seed=0, kind=kind, eod_id=None)
        pairs.read(epochs=np.zeros(1, int), ids=np.zeros(1, int), positions=np.zeros(1, int))
        tracemalloc.start()
        found = pairs.read(epochs=np.zeros(20, int), ids=np.arange(20) * 1000, positions=np.arange(20))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(found) == 20
        assert peak < 100_000, "a table of the document's sentences takes 1.2 million bytes"


def test_sentences_of_a_document(make_text: MakeText) -> None:
    text = make_text([[3, 4], [2, 0, 5, 30, 6]])
    sentences = Sentences(text.stream, 1, END)
    assert (sentences.start, sentences.num_tokens, sentences.num_sentences) == (8, 43, 5)
    chunk = sentences.chunk(4, target=10, longest=20)
    assert (chunk.start, chunk.ends) == (10, [5, 25]), "the long sentence ends after 20 tokens"
    chunk = sentences.chunk(1, target=7, longest=20)
    assert (chunk.start, chunk.ends) == (8, [2, 7]), "empty sentences are none"
    chunk = sentences.chunk(20, target=10, longest=20)
    assert (chunk.start, chunk.ends) == (28, [17]), "a long sentence begins where it is entered"
    chunk = sentences.chunk(42, target=10, longest=20)
    assert (chunk.start, chunk.ends) == (45, [6]), "the end of a document is no text"
    assert Sentences(text.stream, 1, None).num_tokens == 44


def test_chunks_go_over_empty_sentences(make_text: MakeText) -> None:
    sentences = Sentences(make_text([[1, *[0] * 100, 2, 0, 3], [1]]).stream, 0, END)
    chunk = sentences.chunk(0, target=4, longest=20)
    assert (chunk.start, chunk.ends) == (0, [1, 3, 6])
