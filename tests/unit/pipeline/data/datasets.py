"""Data sets of given token ids, for the tests of the readers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.format import token_dtype
from data_prep.manifest import TokenizerRecord, make_manifest, save_manifest
from data_prep.writer import ShardWriter


def write_dataset(folder: Path, shards: Sequence[Sequence[Sequence[int]]], *, vocab_size: int = 1000) -> Path:
    """`folder` with a data set whose shards hold these documents of token ids."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, documents in enumerate(shards):
        with ShardWriter(folder, f"shard_{index:05d}", token_dtype(vocab_size)) as writer:
            for document in documents:
                writer.append(np.asarray(document, dtype=np.int64))
            written.append(writer.commit())
    manifest = make_manifest(
        vocab_size=vocab_size,
        dtype=token_dtype(vocab_size).name,
        eod_id=None,
        num_text_bytes=1,
        tokenizer=TokenizerRecord(path="tokenizer", sha256="0" * 64),
        shards=written,
    )
    save_manifest(manifest, folder)
    return folder
