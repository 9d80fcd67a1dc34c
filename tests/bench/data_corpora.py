"""The corpora of `bench_data.py`: one of real text for rates, and one of any number of documents for start-up.

A corpus is a folder with a tokenizer and two data sets of the same tokens. In `sentences` a document is a run of
sequences, in `documents` it is one sequence: Megatron's data sets for masking need the first, `GPTDataset` the second.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.format import DTYPE_CODES, HEADER, MAGIC, VERSION, bin_path, idx_bytes, idx_path, token_dtype
from data_prep.manifest import Shard, Source, TokenizerRecord, make_manifest, save_manifest
from data_prep.text.installed_docs import collect
from data_prep.text.sentences import SentenceSplitter
from data_prep.tokenizer.loading import load
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer
from data_prep.writer import ShardWriter
from tests.bench.data_task import DOCUMENTS, SENTENCES, SHARD, TOKENIZER
from tests.data_sets import preparation

TEXT_BYTES = 8_000_000
VOCAB_SIZE = 16_384
SENTENCES_PER_DOCUMENT = 40  # mean of a geometric distribution
BATCH_DOCUMENTS = 2_000

SHORT = (8, 32)  # tokens of the documents for start-up, the least and the most, each length as likely: 20 on average
CHUNK_DOCUMENTS = 1_000_000  # in memory at a time
CODE = 8  # of uint16

Lengths = npt.NDArray[np.int64]


def write_tokenizer(folder: Path) -> Tokenizer:
    """A WordPiece tokenizer of real text with the special tokens of all objectives, in `folder`, unless it is there."""
    if (folder / TOKENIZER).exists():
        return load(folder / TOKENIZER)
    return train_tokenizer(
        _texts(), kind="wordpiece", vocab_size=VOCAB_SIZE, out=folder / TOKENIZER, objectives=["all"], lowercase=True
    )


def write_corpus(folder: Path, tokenizer: Tokenizer, *, num_tokens: int) -> None:
    """Documents put together from sentences of real text, each drawn anew, until there are `num_tokens`."""
    sentences = _sentences(tokenizer)
    starts = np.cumsum([0, *map(len, sentences)])
    stream, lengths = np.concatenate(sentences), np.diff(starts)
    rng = np.random.default_rng(1)
    (folder / SENTENCES).mkdir()
    (folder / DOCUMENTS).mkdir()
    shard = token_dtype(tokenizer.vocab_size)
    with (
        ShardWriter(folder / SENTENCES, SHARD, shard) as by_sentence,
        ShardWriter(folder / DOCUMENTS, SHARD, shard) as by_document,
    ):
        while by_sentence.num_tokens < num_tokens:
            counts = rng.geometric(1 / SENTENCES_PER_DOCUMENT, BATCH_DOCUMENTS)
            drawn = rng.integers(0, len(lengths), counts.sum())
            taken = lengths[drawn]
            first = np.repeat(starts[drawn] - (np.cumsum(taken) - taken), taken)
            tokens = stream[first + np.arange(taken.sum())]
            by_sentence.append_batch(tokens, taken, counts)
            by_document.append_batch(tokens, np.add.reduceat(taken, np.cumsum(counts) - counts))
        _describe(folder / SENTENCES, by_sentence.commit(), tokenizer)
        _describe(folder / DOCUMENTS, by_document.commit(), tokenizer)


def write_short_documents(folder: Path, tokenizer: Tokenizer, num_documents: int) -> None:
    """Documents of two sentences, together 20 tokens on average, all of id 0: a .bin of nothing but a hole."""
    num_tokens = 0
    for name, num_sentences in ((SENTENCES, 2), (DOCUMENTS, 1)):
        (folder / name).mkdir(parents=True)
        num_tokens = _write_short_index(folder / name, num_documents, num_sentences)
        with bin_path(folder / name, SHARD).open("wb") as file:
            file.truncate(2 * num_tokens)
        num_sequences = num_documents * num_sentences
        shard = Shard(
            name=SHARD,
            num_documents=num_documents,
            num_sequences=num_sequences,
            num_tokens=num_tokens,
            bin_bytes=2 * num_tokens,
            bin_checksum="0" * 32,
            idx_checksum="0" * 32,
        )
        _describe(folder / name, shard, tokenizer)


def _write_short_index(folder: Path, num_documents: int, num_sentences: int) -> int:
    """The .idx, a chunk of each of its three tables at a time; returns the number of tokens."""
    num_sequences = num_documents * num_sentences
    places = HEADER.size + 4 * num_sequences
    boundaries = places + 8 * num_sequences
    with idx_path(folder, SHARD).open("wb", buffering=0) as file:
        file.write(HEADER.pack(MAGIC, VERSION, CODE, num_sequences, num_documents + 1))
        file.truncate(idx_bytes(num_sequences, num_documents))
        sequence = end = 0
        for whole in _short_lengths(num_documents):
            parts = [whole // num_sentences] * (num_sentences - 1)
            lengths = np.stack([*parts, whole - sum(parts)], axis=1).reshape(-1)
            ends = end + np.cumsum(lengths)
            os.pwrite(file.fileno(), lengths.astype("<i4").tobytes(), HEADER.size + 4 * sequence)
            os.pwrite(file.fileno(), (2 * (ends - lengths)).astype("<i8").tobytes(), places + 8 * sequence)
            of_documents = np.arange(sequence, sequence + len(lengths) + 1, num_sentences, dtype="<i8")
            os.pwrite(file.fileno(), of_documents.tobytes(), boundaries + 8 * (sequence // num_sentences))
            sequence, end = sequence + len(lengths), int(ends[-1])
    return end


def _short_lengths(num_documents: int) -> Iterator[Lengths]:
    rng = np.random.default_rng(2)
    for start in range(0, num_documents, CHUNK_DOCUMENTS):
        yield rng.integers(SHORT[0], SHORT[1] + 1, min(CHUNK_DOCUMENTS, num_documents - start))


def _texts() -> Iterator[str]:
    for document in collect(max_bytes=TEXT_BYTES, min_bytes=TEXT_BYTES // 2):
        yield document.text


def _sentences(tokenizer: Tokenizer) -> list[npt.NDArray[np.int64]]:
    """The ids of each sentence of the text that has any, and is not longer than Megatron takes (512)."""
    splitter, found = SentenceSplitter("en"), []
    for text in _texts():
        gaps = splitter.gaps(text)
        bounds = zip([0, *(stop for _, stop in gaps)], [*(start for start, _ in gaps), len(text)], strict=True)
        ids = tokenizer.encode_batch([text[start:stop] for start, stop in bounds])
        found += [one.astype(np.int64) for one in ids if 0 < len(one) <= 512]
    return found


def _describe(folder: Path, shard: Shard, tokenizer: Tokenizer) -> None:
    language = "en" if shard.num_sequences > shard.num_documents else None
    whole = Source(
        name="text",
        num_documents=shard.num_documents,
        num_tokens=shard.num_tokens,
        num_text_bytes=4 * shard.num_tokens,
    )
    manifest = make_manifest(
        vocab_size=tokenizer.vocab_size,
        dtype=DTYPE_CODES[CODE].name,
        eod_id=tokenizer.eod_id,
        tokenizer=TokenizerRecord(path=f"../{TOKENIZER}", sha256=tokenizer.sha256),
        sources=[whole],
        shards=[shard],
        preparations=[preparation(shard.num_documents, language)],
    )
    save_manifest(manifest, folder)
