"""Batches for encoders: laid out, masked, and labelled."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.objectives.masked import Masked, pair_length, window_length
from pipeline.objectives.masking import Masking
from pipeline.objectives.samples import IGNORED, Batch, Pair, Windows
from tests.unit.pipeline.objectives.vocabularies import END, PAD, vocabulary

SIZE = 100
MASK, CLS, SEP = 2, 3, 4
NUM_SPECIAL = 5
SEQ_LEN = 32

# Ids from 50 on go on with the word of an id before them that is not a multiple of three.
ids = np.arange(SIZE)
WORDS = vocabulary(
    SIZE,
    num_sentinels=0,
    mask_id=MASK,
    cls_id=CLS,
    sep_id=SEP,
    is_special=ids < NUM_SPECIAL,
    joins_left=ids >= 50,
    joins_right=ids % 3 > 0,
)

texts = st.lists(st.integers(NUM_SPECIAL, SIZE - 1) | st.just(END), min_size=1, max_size=window_length(SEQ_LEN))
windows = st.lists(texts, min_size=1, max_size=4)
halves = st.lists(st.integers(NUM_SPECIAL, SIZE - 1), min_size=1, max_size=14)
pairs = st.lists(st.builds(Pair, halves.map(np.array), halves.map(np.array), st.integers(0, 1)), min_size=1, max_size=4)
maskings = st.builds(Masking, masking=st.sampled_from(["token", "whole_word", "ngram", "span"]))


def masked(masking: Masking | None = None, *, seed: int = 0, **fields: Any) -> Masked:
    words = WORDS if not fields else vocabulary(SIZE, num_sentinels=0, **fields)
    return Masked(vocabulary=words, masking=masking or Masking(), seq_len=SEQ_LEN, seed=seed)


def as_windows(rows: list[list[int]], width: int = window_length(SEQ_LEN)) -> Windows:
    tokens = np.full((len(rows), width), 77, np.uint16)  # filling, of which nothing may be seen
    for row, text in enumerate(rows):
        tokens[row, : len(text)] = text
    return Windows(tokens=tokens, lengths=np.array([len(text) for text in rows], np.int64))


def originals(batch: Batch) -> list[list[int]]:
    """What the samples were before they were masked, without padding."""
    restored = np.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
    return [row[filled].tolist() for row, filled in zip(restored, batch["attention_mask"], strict=True)]


def check(batch: Batch, num_rows: int) -> None:
    names = {"input_ids": np.int32, "token_type_ids": np.int32, "labels": np.int32, "attention_mask": np.bool_}
    for name, dtype in names.items():
        assert (batch[name].shape, batch[name].dtype) == ((num_rows, SEQ_LEN), np.dtype(dtype))
    assert (batch["input_ids"][~batch["attention_mask"]] == PAD).all()
    labels = batch["labels"]
    assert ((labels == IGNORED) | (labels >= NUM_SPECIAL)).all(), "a special token is to be guessed"
    shown = batch["input_ids"][labels != IGNORED]
    assert ((shown == MASK) | (shown >= NUM_SPECIAL)).all(), "a special token stands in the place of another"
    for row, text in enumerate(originals(batch)):
        maskable = sum(token >= NUM_SPECIAL for token in text)
        assert min(maskable, 1) <= (labels[row] != IGNORED).sum() <= Masking().num_targets(maskable)


@given(windows, maskings, st.integers(0, 2**40))
def test_windows(rows: list[list[int]], masking: Masking, position: int) -> None:
    positions = position + np.arange(len(rows))
    batch = masked(masking).batch(as_windows(rows), positions)
    check(batch, len(rows))
    assert {*batch} == {"input_ids", "token_type_ids", "labels", "attention_mask"}
    assert originals(batch) == [[CLS, *text, SEP] for text in rows], "labels must restore the text"
    assert not batch["token_type_ids"].any()


@given(pairs, maskings, st.integers(0, 2**40))
def test_pairs(rows: list[Pair], masking: Masking, position: int) -> None:
    positions = position + np.arange(len(rows))
    batch = masked(masking).batch(rows, positions)
    check(batch, len(rows))
    assert originals(batch) == [[CLS, *pair.first.tolist(), SEP, *pair.second.tolist(), SEP] for pair in rows]
    for types, pair in zip(batch["token_type_ids"].tolist(), rows, strict=True):
        second = len(pair.second) + 1
        first = len(pair.first) + 2
        assert types == [0] * first + [1] * second + [0] * (SEQ_LEN - first - second)
    assert batch["next_sentence_label"].tolist() == [pair.label for pair in rows]
    assert batch["next_sentence_label"].dtype == np.int32


@given(windows, maskings)
def test_a_position_is_masked_alike_in_every_batch(rows: list[list[int]], masking: Masking) -> None:
    positions = np.arange(len(rows)) * 7 + 2**35
    together = masked(masking).batch(as_windows(rows), positions)
    for row, text in enumerate(rows):
        alone = masked(masking).batch(as_windows([text]), positions[row : row + 1])
        for name, values in alone.items():
            assert np.array_equal(values[0], together[name][row])


@pytest.mark.parametrize("unit", ["token", "whole_word", "ngram", "span"])
def test_the_same_text_is_masked_anew_at_each_position(unit: Any) -> None:
    text = np.random.default_rng(0).integers(NUM_SPECIAL, SIZE, window_length(SEQ_LEN)).tolist()
    rows = as_windows([text] * 50)
    places = masked(Masking(masking=unit)).batch(rows, np.arange(50))["labels"] != IGNORED
    assert len({tuple(row) for row in places.tolist()}) > 25
    others = masked(Masking(masking=unit), seed=1).batch(rows, np.arange(50))["labels"] != IGNORED
    # Two draws agree in all of a row as seldom as two positions do.
    assert (places == others).all(axis=1).sum() < 25


TEXT = [10, 50, 51, 52, 53, 54, 55, END, 50, 51, 10, 10, 51, 10, 50]
FIRST, OTHERS = [0, 1, 2], [[3, 4, 5], [6], [8, 9], [10], [11, 12], [13, 14]]


@pytest.mark.parametrize(("starts", "words"), [(None, [FIRST, *OTHERS]), ([0, 2], [[0, 1], [2], *OTHERS])])
def test_words_are_masked_whole(starts: list[int] | None, words: list[list[int]]) -> None:
    """Over a special token, and over the beginning of a document, no word goes on."""
    raw = as_windows([TEXT] * 300, len(TEXT))
    if starts is not None:
        flags = np.zeros((300, len(TEXT)), np.bool_)
        flags[:, starts] = True
        raw = Windows(tokens=raw.tokens, lengths=raw.lengths, starts_document=flags)
    rule = Masking(masking="whole_word", mask_rate=0.22)  # 3 of 14 tokens
    is_masked = masked(rule).batch(raw, np.arange(300))["labels"][:, 1:] != IGNORED
    for word in words:
        assert {*is_masked[:, word].sum(axis=1).tolist()} == {0, len(word)}
    # Each without each other one, so no two of them are one word.
    assert all((is_masked[:, a[0]] & ~is_masked[:, b[0]]).any() for a in words for b in words if a != b)


@pytest.mark.parametrize("unit", ["token", "whole_word", "ngram", "span"])
def test_samples_without_text_have_no_labels(unit: Any) -> None:
    batch = masked(Masking(masking=unit)).batch(as_windows([[], [END, END], [50]]), np.arange(3))
    assert (batch["labels"] != IGNORED).sum(axis=1).tolist() == [0, 0, 1]
    assert batch["attention_mask"].sum(axis=1).tolist() == [2, 4, 3]
    empty = masked(Masking(masking=unit)).batch(as_windows([]), np.arange(0))
    assert all(values.shape == (0, SEQ_LEN) for values in empty.values())


def test_a_tokenizer_without_padding_gets_a_zero_that_is_no_text() -> None:
    special = (ids < NUM_SPECIAL) & (ids > 0)
    objective = masked(mask_id=MASK, cls_id=CLS, sep_id=SEP, pad_id=None, is_special=special)
    batch = objective.batch(as_windows([[50]]), np.arange(1))
    assert not batch["input_ids"][~batch["attention_mask"]].any()
    assert (batch["labels"] != IGNORED).sum() == 1


def test_lengths_leave_room_for_special_tokens() -> None:
    assert (window_length(512), pair_length(512)) == (510, 509)
    longest = Pair(np.full(14, 50), np.full(pair_length(SEQ_LEN) - 14, 50), 0)
    assert masked().batch([longest], np.arange(1))["attention_mask"].all()
    assert masked().batch(as_windows([[50] * window_length(SEQ_LEN)]), np.arange(1))["attention_mask"].all()
