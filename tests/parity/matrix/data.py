"""Data that every family can learn from: documents of several sentences, and a tokenizer with all special tokens."""

from pathlib import Path

import torch

from data_prep.manifest import TokenizerRecord
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer
from tests.data_sets import write_data_set
from tests.small_models import WORDS

# Padded differently on each number of ranks, which hold a multiple of 64 rows each: one has 320, of two the second has
# 108 real ones of its 192, of four the third has 44 of its 128 and the last has none.
VOCAB_SIZE = 300


def make_data(folder: Path) -> Path:
    """`folder` with a tokenizer in tokenizer/ and the data sets train/ and validation/."""
    texts = [sentence for document in _documents(100, seed=0) for sentence in document]
    tokenizer = train_tokenizer(
        texts, kind="wordpiece", vocab_size=VOCAB_SIZE, out=folder / "tokenizer", objectives=["all"]
    )
    for name, count, seed in (("train", 120, 1), ("validation", 30, 2)):
        _write(folder / name, _documents(count, seed=seed), tokenizer)
    return folder


def _documents(count: int, *, seed: int) -> list[list[str]]:
    """Text with some structure: each word is followed by one of three; 3 to 8 sentences of 3 to 10 words."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    def sentence() -> str:
        index, words = draw(0, len(WORDS) - 1), []
        for _ in range(draw(3, 10)):
            words.append(WORDS[index])
            index = (index + draw(1, 3)) % len(WORDS)
        return " ".join(words) + "."

    return [[sentence() for _ in range(draw(3, 8))] for _ in range(count)]


def _write(folder: Path, documents: list[list[str]], tokenizer: Tokenizer) -> None:
    assert tokenizer.eod_id is not None
    encoded = [[ids.tolist() for ids in tokenizer.encode_batch(document)] for document in documents]
    for sentences in encoded:
        sentences[-1].append(tokenizer.eod_id)
    write_data_set(
        folder,
        [encoded],
        vocab_size=tokenizer.vocab_size,
        eod_id=tokenizer.eod_id,
        tokenizer=TokenizerRecord(path="../tokenizer", sha256=tokenizer.sha256),
        split_sentences="en",
    )
