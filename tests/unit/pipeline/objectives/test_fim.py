"""Fill in the middle."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pipeline.errors import DataError
from pipeline.objectives.fim import Fim
from pipeline.objectives.samples import Windows
from tests.unit.pipeline.objectives import chi_square
from tests.unit.pipeline.objectives.vocabularies import END, vocabulary

PREFIX, MIDDLE, SUFFIX, BOS = IDS = 2, 3, 4, 5
WORDS = vocabulary(fim_ids=(PREFIX, MIDDLE, SUFFIX), bos_id=BOS)
FIRST_TEXT = 10
SAMPLE = "It was the best of times, it was the worst of times.\n\tnaïve Größe — 東京の天気は晴れ 🙂\n" * 3


class Codec:
    """A tokenizer of the tokenizers library, its ids moved behind the special ones."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return [token + FIRST_TEXT for token in self.tokenizer.encode(text).ids]

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode([token - FIRST_TEXT for token in ids]))


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([SAMPLE], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return tokenizer


CODEC = Codec(byte_level())


def window(documents: list[list[int]], width: int | None = None) -> Windows:
    """One window that holds documents, and filling behind them."""
    tokens = [token for document in documents for token in document]
    starts = np.zeros((1, width or len(tokens)), np.bool_)
    begins = np.cumsum([0, *(len(document) for document in documents)])[:-1]
    starts[0, begins[begins < starts.size]] = True
    laid = np.zeros(starts.shape, np.uint16)
    laid[0, : len(tokens)] = tokens[: starts.size]
    return Windows(tokens=laid, lengths=np.array([min(len(tokens), starts.size)]), starts_document=starts)


def documents_of(windows: Windows) -> list[list[int]]:
    tokens, length = windows.tokens[0], int(windows.lengths[0])
    begins = np.flatnonzero(windows.starts_document[0, :length])
    return [part.tolist() for part in np.split(tokens[:length], begins[1:])]


def restored(document: list[int]) -> list[int]:
    """A permuted document in its old order."""
    head = document[:1] if document[:1] == [BOS] else []
    tail = document[-1:] if document[-1:] == [END] else []
    body = document[len(head) : len(document) - len(tail)]
    if PREFIX not in body:
        return document
    assert body[0] == PREFIX
    suffix, middle = body.index(SUFFIX), body.index(MIDDLE)
    assert suffix < middle
    text = body[1:suffix], body[suffix + 1 : middle], body[middle + 1 :]
    # Both orders read alike: in SPM the prefix lies in front of the middle, and nothing in its own place.
    return [*head, *text[0], *text[2], *text[1], *tail]


plain_tokens = st.lists(st.integers(FIRST_TEXT, 500), max_size=30)
any_documents = st.lists(
    st.tuples(st.sampled_from([[], [BOS]]), plain_tokens, st.sampled_from([[], [END]])).map(
        lambda parts: [*parts[0], *parts[1], *parts[2]]
    ),
    max_size=6,
).map(lambda documents: [document for document in documents if document])


@given(
    documents=any_documents,
    rate=st.sampled_from([0.5, 1.0]),
    spm=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**64 - 1),
)
def test_cut_between_tokens_restored_is_the_document(
    documents: list[list[int]], rate: float, spm: float, seed: int
) -> None:
    room = sum(map(len, documents)) + 3 * len(documents)
    permuted = Fim(vocabulary=WORDS, rate=rate, spm_share=spm, seed=seed).apply(window(documents, room), np.array([9]))
    assert permuted.tokens.dtype == np.int32
    found = documents_of(permuted) if documents else []
    assert [restored(document) for document in found] == documents
    for before, after in zip(documents, found, strict=True):
        can = len([token for token in before if token >= FIRST_TEXT]) >= 3
        assert len(after) - len(before) in ([3] if can and rate == 1 else [0, 3] if can else [0])
        if spm == 1 and len(after) > len(before):
            assert after[after.index(PREFIX) + 1] == SUFFIX


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("東京🙂é ab\n", max_size=60),
    whole=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
    skip=st.integers(0, 2),
)
def test_cut_between_characters_restored_is_the_text(text: str, whole: bool, seed: int, skip: int) -> None:
    document = [*CODEC.encode(text)[skip:], *([END] if whole else [])]
    if not document:
        return
    fim = Fim(vocabulary=WORDS, rate=1, cut="character", text=CODEC, seed=seed)
    found = documents_of(fim.apply(window([document], 400), np.array([1])))
    assert len(found) == 1
    back = restored(found[0])
    body, back_body = ([token for token in tokens if token != END] for tokens in (document, back))
    assert CODEC.decode(back_body) == CODEC.decode(body)
    assert (back[-1] == END) == whole
    original = CODEC.decode(body)
    if len(original) >= 3 and "\ufffd" not in original and len(document) >= 3:
        assert PREFIX in found[0]
    else:
        assert found == [document], "what cannot be cut is left as it is"


def test_bytes_that_are_no_text_are_left_as_they_are() -> None:
    document = CODEC.encode("🙂 and then some text")[1:]
    assert "\ufffd" in CODEC.decode(document)
    fim = Fim(vocabulary=WORDS, rate=1, cut="character", text=CODEC, seed=0)
    assert documents_of(fim.apply(window([document], 100), np.array([0]))) == [document]


@pytest.mark.parametrize("special", [0, 999, END])
def test_special_tokens_inside_are_not_turned_into_text(special: int) -> None:
    document = [*CODEC.encode("one two three"), special, *CODEC.encode("four")]
    fim = Fim(vocabulary=WORDS, rate=1, cut="character", text=CODEC, seed=0)
    assert documents_of(fim.apply(window([document], 100), np.array([0]))) == [document]


@pytest.mark.parametrize("spelled", [PREFIX, MIDDLE, SUFFIX])
def test_a_text_that_holds_the_marks_is_left_as_it_is(spelled: int) -> None:
    document = [*range(20, 40), spelled, *range(40, 60)]
    fim = Fim(vocabulary=WORDS, rate=1, seed=0)
    assert documents_of(fim.apply(window([document], 100), np.array([0]))) == [document]


@pytest.mark.parametrize(("cut", "spm_share"), [("token", 0.5), ("token", 0.2), ("character", 0.5)])
def test_rate_orders_and_cuts_are_as_asked(cut: str, spm_share: float) -> None:
    body = CODEC.encode("abcdefghij") if cut == "character" else list(range(20, 30))
    spaced = [CODEC.encode(letter) for letter in "abcdefghij"] if cut == "character" else [[token] for token in body]
    assert [token for letter in spaced for token in letter] == body, "each letter is a token of its own"
    num_documents = 6000
    fim = Fim(vocabulary=WORDS, rate=0.3, spm_share=spm_share, cut=cut, text=CODEC, seed=4)
    one = window([body], len(body) + 3)
    kinds: Counter[str] = Counter()
    cuts: Counter[tuple[int, int]] = Counter()
    for position in range(num_documents):
        document = documents_of(fim.apply(one, np.array([position])))[0]
        if PREFIX not in document:
            kinds["plain"] += 1
            continue
        suffix, middle = document.index(SUFFIX), document.index(MIDDLE)
        if suffix > 1:
            kinds["psm"] += 1
            cuts[suffix - 1, suffix - 1 + len(document) - 1 - middle] += 1
        else:
            kinds["spm or psm without a prefix"] += 1
    places = len(body) + 1
    no_prefix = 1 - ((places - 1) / places) ** 2  # one of the two cuts lies in front of all
    psm = (1 - spm_share) * (1 - no_prefix)
    shares = {"plain": 0.7, "psm": 0.3 * psm, "spm or psm without a prefix": 0.3 * (1 - psm)}
    assert chi_square.fits([kinds[kind] for kind in shares], list(shares.values()))
    pairs = [(first, second) for first in range(1, places) for second in range(first, places)]
    assert chi_square.fits([cuts[pair] for pair in pairs], [1 if one == other else 2 for one, other in pairs])


def test_both_orders_are_the_papers() -> None:
    document = [BOS, *range(20, 40), END]
    psm, spm = (
        documents_of(
            Fim(vocabulary=WORDS, rate=1, spm_share=share, seed=8).apply(window([document], 30), np.array([2]))
        )[0]
        for share in (0.0, 1.0)
    )
    suffix, middle = psm.index(SUFFIX), psm.index(MIDDLE)
    first, rest, last = psm[2:suffix], psm[suffix + 1 : middle], psm[middle + 1 : -1]
    assert first + last + rest == document[1:-1]
    assert min(len(first), len(rest), len(last)) > 0
    assert spm == [BOS, PREFIX, SUFFIX, *rest, MIDDLE, *first, *last, END]


def test_what_no_longer_fits_is_cut_at_the_end() -> None:
    documents = [[*range(20, 40), END], [*range(50, 70), END], [*range(80, 90)]]
    full = window(documents)
    permuted = Fim(vocabulary=WORDS, rate=1, seed=3).apply(full, np.array([1]))
    roomy = Fim(vocabulary=WORDS, rate=1, seed=3).apply(window(documents, 100), np.array([1]))
    width = full.tokens.shape[1]
    assert permuted.tokens.shape == full.tokens.shape
    assert permuted.lengths.tolist() == [width]
    assert permuted.tokens[0].tolist() == roomy.tokens[0, :width].tolist()
    assert permuted.starts_document[0].tolist() == roomy.starts_document[0, :width].tolist()
    assert np.flatnonzero(permuted.starts_document[0]).tolist() == [0, 24, 48]


def test_what_was_read_is_not_changed_and_a_part_in_front_is_a_document() -> None:
    raw = window([list(range(20, 40)), list(range(50, 70))])
    raw.starts_document[0, 0] = False
    before = raw.tokens.copy(), raw.starts_document.copy()
    permuted = Fim(vocabulary=WORDS, rate=1, seed=3).apply(raw, np.array([1]))
    assert np.array_equal(raw.tokens, before[0])
    assert np.array_equal(raw.starts_document, before[1])
    assert np.flatnonzero(permuted.starts_document[0]).tolist() == [23]
    assert restored(permuted.tokens[0, :23].tolist()) == list(range(20, 40))


@given(order=st.permutations(range(5)), seed=st.integers(0, 2**64 - 1))
def test_a_sample_depends_on_its_position_alone(order: list[int], seed: int) -> None:
    random = np.random.default_rng(0)
    raw = Windows(
        tokens=random.integers(FIRST_TEXT, 500, (5, 50)),
        lengths=np.array([50, 0, 1, 40, 50]),
        starts_document=random.random((5, 50)) < 0.1,
    )
    positions = np.array([4, 2**50, 9, 10**12, 5])
    fim = Fim(vocabulary=WORDS, rate=0.5, seed=seed)
    whole = fim.apply(raw, positions)
    for row in order:
        part = slice(row, row + 1)
        alone = Windows(tokens=raw.tokens[part], lengths=raw.lengths[part], starts_document=raw.starts_document[part])
        again = fim.apply(alone, positions[part])
        assert np.array_equal(again.tokens, whole.tokens[part])
        assert np.array_equal(again.lengths, whole.lengths[part])
        assert np.array_equal(again.starts_document, whole.starts_document[part])


def test_a_tokenizer_without_the_tokens_is_refused() -> None:
    with pytest.raises(DataError, match=r"objective.fim_rate=0.5 .* has no tokens for prefix"):
        Fim(vocabulary=vocabulary(), rate=0.5, seed=0)


def folding() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def with_space_in_front() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


@pytest.mark.parametrize("tokenizer", [folding(), with_space_in_front()])
def test_a_tokenizer_that_changes_parts_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"fim_cut=character .* Set objective.fim_cut=token"):
        Fim(vocabulary=WORDS, rate=0.5, cut="character", text=Codec(tokenizer), seed=0)
    Fim(vocabulary=WORDS, rate=0.5, cut="token", text=Codec(tokenizer), seed=0)
