"""Data sets of given token ids, for the tests of whatever reads one."""

import argparse
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from data_prep.accounting import Counters
from data_prep.cli_data_set import add_commands
from data_prep.data_sets.data_set import DataSet
from data_prep.format import token_dtype
from data_prep.manifest import Preparation, SentenceRecord, Source, TokenizerRecord, make_manifest, save_manifest
from data_prep.metadata import MetadataWriter
from data_prep.writer import ShardWriter

Documents = Sequence[Sequence[int]] | Sequence[Sequence[Sequence[int]]]  # of ids, or of sentences of ids


def write_data_set(
    folder: Path,
    shards: Sequence[Documents],
    *,
    vocab_size: int = 1000,
    eod_id: int | None = None,
    metadata: bool = False,
    tokenizer: TokenizerRecord | None = None,
    sources: Sequence[Source] | None = None,
    split_sentences: str | None = None,
) -> Path:
    """`folder` with a data set whose shards hold these documents of token ids, as `pretrain data tokenize` leaves one.

    Args:
        eod_id: what the manifest says; it is not appended.
        metadata: keep {"name": "folder's name n"} of document n.
        sources: what the manifest says; one that fits if None.
        split_sentences: their language, if each document is a list of sentences.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = token_dtype(vocab_size)
    written, number = [], 0
    for index, documents in enumerate(shards):
        name, checksum = f"shard_{index:05d}", None
        with ShardWriter(folder, name, dtype) as writer:
            for document in documents:
                sentences: Any = document if split_sentences else [document]
                tokens = np.array([token for sentence in sentences for token in sentence], np.int64)
                writer.append_batch(tokens, np.array([*map(len, sentences)], np.int64), np.array([len(sentences)]))
            shard = writer.commit()
        if metadata:
            with MetadataWriter(folder, name) as lines:
                for _ in documents:
                    lines.write(metadata_line(folder, number))
                    number += 1
                checksum = lines.commit()
        written.append(dataclasses.replace(shard, metadata_checksum=checksum))
    num_documents, num_tokens = (sum(getattr(one, of) for one in written) for of in ("num_documents", "num_tokens"))
    whole = Source(name="text", num_documents=num_documents, num_tokens=num_tokens, num_text_bytes=4 * num_tokens)
    manifest = make_manifest(
        vocab_size=vocab_size,
        dtype=dtype.name,
        eod_id=eod_id,
        tokenizer=tokenizer or TokenizerRecord(path="../tokenizer", sha256="0" * 64),
        sources=sources if sources is not None else [whole],
        shards=written,
        preparations=[preparation(num_documents, split_sentences)],
        metadata_keys=["name"] if metadata else [],
    )
    save_manifest(manifest, folder)
    return folder


def preparation(num_documents: int, split_sentences: str | None = None) -> Preparation:
    """One that left out an empty line, two records that a filter named, and a bad one."""
    counters = Counters(
        lines=num_documents + 4, documents=num_documents, empty=1, filtered={"short": 2}, bad={"null": 1}
    )
    return Preparation(
        config_hash="0",
        engine="none 1",
        parity="none",
        special_in_text="split",
        sentences=SentenceRecord(language=split_sentences, library="none 1") if split_sentences else None,
        counters=counters,
    )


def metadata_line(folder: Path, number: int) -> bytes:
    return f'{{"name":"{folder.name} {number}"}}\n'.encode()


def read_documents(folder: Path) -> list[list[int]]:
    """All documents of a data set, one by one through its index."""
    data_set = DataSet(folder)
    return [data_set.document(number).tolist() for number in range(len(data_set))]


def read_sentences(folder: Path) -> list[list[list[int]]]:
    """All documents of a data set, each as the list of its sequences."""
    data_set = DataSet(folder)
    return [[ids.tolist() for ids in data_set.sequences(number)] for number in range(len(data_set))]


def read_names(folder: Path) -> list[str]:
    """What `metadata=True` kept of each document."""
    data_set = DataSet(folder)
    return [record["name"] for record in data_set.metadata(range(len(data_set))) if record is not None]


def run_data(*words: object) -> int:
    """Runs `pretrain data ...` with these arguments."""
    parser = argparse.ArgumentParser("pretrain data")
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args([str(word) for word in words])
    code: int = args.run(args)
    return code


def train_small_tokenizer(folder: Path) -> Path:
    """`folder` with a tokenizer.model that loses nothing: pieces of text, and bytes for what they do not cover."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(topics["assignment"].splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=500,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return folder
