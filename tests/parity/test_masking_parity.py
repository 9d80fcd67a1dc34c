"""Masking against the collators of `transformers`, which get the draws that ours makes.

They mask each token by a coin, ours an exact number; so what is compared is all that follows from the choice: which
tokens may be chosen, what stands in their place, the labels, and in whole words which tokens go together.
"""

from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest

from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer
from pipeline.convert.tokenizer_files import copy_tokenizer
from pipeline.data.vocabulary import load_vocabulary
from pipeline.objectives.draws import Draws
from pipeline.objectives.masked import Masked, window_length
from pipeline.objectives.masking import Masking
from pipeline.objectives.samples import IGNORED, Batch, Windows
from pipeline.objectives.vocabulary import Vocabulary

TEXTS = [text for _, text in sorted(topics.items())][:20]
SEQ_LEN, NUM_ROWS, SEED = 128, 16, 5


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    out = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    return train_tokenizer(
        TEXTS, kind="wordpiece", vocab_size=700, out=out, objectives=["masked"], model_max_length=512
    )


@pytest.fixture(scope="module")
def theirs(ours: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("theirs")
    copy_tokenizer(ours, folder)
    return AutoTokenizer.from_pretrained(folder)


class Script:
    """In the place of the collator's generator: answers what it was given, and keeps what it was asked."""

    def __init__(self, coins: list[np.ndarray], ids: np.ndarray) -> None:
        self.coins, self.ids, self.rates = coins, ids, list[Any]()

    def binomial(self, n: int, p: Any, size: tuple[int, ...]) -> np.ndarray:
        assert n == 1
        assert self.coins[0].shape == size
        self.rates.append(p)
        return self.coins.pop(0)

    def integers(self, low: int, high: int, size: int, dtype: Any) -> np.ndarray:
        assert ((low <= self.ids) & (self.ids < high)).all()
        assert len(self.ids) == size
        return self.ids.astype(dtype)


def collate(tokenizer: Any, rows: list[dict[str, Any]], script: Script, **options: Any) -> dict[str, np.ndarray]:
    from transformers import DataCollatorForLanguageModeling

    collator = DataCollatorForLanguageModeling(tokenizer, return_tensors="np", seed=0, **options)
    collator.generator = script
    # Newer versions make another one where it is none of NumPy's.
    collator.create_rng = lambda *_: setattr(collator, "generator", script)
    return dict(collator(rows))


def texts_of(tokenizer: Any, texts: list[str]) -> tuple[list[dict[str, Any]], Windows]:
    """Texts as the collator gets them, and as our objective does; the first one fills all positions."""
    coded = [tokenizer(text, truncation=True, max_length=SEQ_LEN, return_offsets_mapping=True) for text in texts]
    rows = [{"input_ids": one["input_ids"], "attention_mask": one["attention_mask"]} for one in coded]
    assert max(len(row["input_ids"]) for row in rows) == SEQ_LEN
    tokens = np.zeros((len(rows), window_length(SEQ_LEN)), np.uint16)
    lengths = np.array([len(row["input_ids"]) - 2 for row in rows], np.int64)
    for row, length, values in zip(rows, lengths, tokens, strict=True):
        values[:length] = row["input_ids"][1:-1]
    return [row | {"offset_mapping": one["offset_mapping"]} for row, one in zip(rows, coded, strict=True)], Windows(
        tokens=tokens, lengths=lengths
    )


def plain_draws(rows: list[list[int]], words: Vocabulary) -> tuple[list[np.ndarray], np.ndarray]:
    """Which tokens are masked, which get the mask token, which another; and the ids of these. Drawn one by one."""
    draws = Draws(seed=SEED, purpose="masking")
    ordinary = [token for token in range(words.size) if not words.is_special[token]]
    chosen, hidden, changed = (np.zeros((len(rows), SEQ_LEN), np.bool_) for _ in range(3))
    ids = []
    for row, text in enumerate(rows):
        generator = draws.of(row)
        places = [place for place, token in enumerate(text) if not words.is_special[token]]
        keys = [(generator.random(), place) for place in places]
        targets = sorted(place for _, place in sorted(keys)[: max(1, round(0.15 * len(places)))])
        decisions = [generator.random() for _ in targets]
        which = [int(generator.random() * len(ordinary)) for _ in targets]
        for place, decision, number in zip(targets, decisions, which, strict=True):
            chosen[row, place] = True
            hidden[row, place] = decision < 0.8
            changed[row, place] = 0.8 <= decision < 0.9
            if changed[row, place]:
                ids.append(ordinary[number])
    return [chosen, hidden, changed], np.array(ids)


def same(ours_: Batch, theirs_: dict[str, np.ndarray]) -> None:
    for name in ("input_ids", "labels", "attention_mask"):
        assert np.array_equal(ours_[name], theirs_[name]), name


def test_single_tokens(ours: Tokenizer, theirs: Any) -> None:
    words = load_vocabulary(ours)
    rows, windows = texts_of(
        theirs, [TEXTS[0], *(text[: 20 * number] for number, text in enumerate(TEXTS[1:NUM_ROWS]))]
    )
    rows = [{name: row[name] for name in ("input_ids", "attention_mask")} for row in rows]
    coins, ids = plain_draws([row["input_ids"] for row in rows], words)
    chosen = coins[0]
    script = Script(coins, ids)
    batch = Masked(vocabulary=words, masking=Masking(), seq_len=SEQ_LEN, seed=SEED).batch(windows, np.arange(len(rows)))
    same(batch, collate(theirs, rows, script))
    assert len(ids) > 10
    # What may be chosen, and how likely it is then hidden or changed.
    may_be = (
        batch["attention_mask"] & ~words.is_special[np.where(batch["labels"] < 0, batch["input_ids"], batch["labels"])]
    )
    assert np.array_equal(script.rates[0], np.where(may_be, 0.15, 0))
    assert not (chosen & ~may_be).any()
    assert script.rates[1:] == [0.8, pytest.approx(0.1 / 0.2)]


def test_whole_words(ours: Tokenizer, theirs: Any) -> None:
    """Words of letters alone: they take what no space divides for a word, BERT's own code goes by `##`."""
    words = load_vocabulary(ours)
    # Without padding: the collator does not pad what it knows words by.
    letters = [50 * "".join(c if c.isalpha() else " " for c in text) for text in TEXTS[:NUM_ROWS]]
    rows, windows = texts_of(theirs, letters)
    objective = Masked(
        vocabulary=words,
        masking=Masking(masking="whole_word", mask_token_share=1, random_token_share=0),
        seq_len=SEQ_LEN,
        seed=SEED,
    )
    batch = objective.batch(windows, np.arange(len(rows)))
    original = np.where(batch["labels"] == IGNORED, batch["input_ids"], batch["labels"])
    joined = np.zeros_like(batch["attention_mask"])
    joined[:, 1:] = words.joins_left[original[:, 1:]] & words.joins_right[original[:, :-1]]
    assert joined.sum() > 100
    script = Script([(batch["labels"] != IGNORED) & ~joined, np.ones_like(joined)], np.zeros(0))
    same(batch, collate(theirs, rows, script, whole_word_mask=True, mask_replace_prob=1.0, random_replace_prob=0.0))
    begins = batch["attention_mask"] & ~words.is_special[original] & ~joined
    assert np.array_equal(script.rates[0], np.where(begins, 0.15, 0)), "other tokens begin words"


def test_words_with_punctuation_are_parts_of_theirs(ours: Tokenizer, theirs: Any) -> None:
    from transformers import DataCollatorForLanguageModeling

    words = load_vocabulary(ours)
    rows, _ = texts_of(theirs, TEXTS[:NUM_ROWS])
    for row in rows:
        ids = np.array(row["input_ids"])
        special = words.is_special[ids]
        _, goes_on = DataCollatorForLanguageModeling._calc_word_ids_and_prob_mask(
            np.array([row["offset_mapping"]]), special[None].astype(int)
        )
        joined = words.joins_left[ids[1:]] & words.joins_right[ids[:-1]]
        assert goes_on[0, 1:][joined].all()
