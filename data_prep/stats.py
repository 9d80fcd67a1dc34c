"""Figures of a data set, from its manifest and its indices."""

import os
from pathlib import Path

import numpy as np

from data_prep.format import idx_path, read_index
from data_prep.manifest import load_manifest


def stats(folder: Path) -> dict[str, float | int | str]:
    """Figures of the data set in `folder`, by name; the tokens themselves are not read.

    Raises:
        DataError: there is no data set, or a file has another size than its manifest says.
    """
    manifest = load_manifest(folder)
    lengths = np.concatenate([read_index(idx_path(folder, shard.name)).lengths for shard in manifest.shards])
    return {
        "shards": len(manifest.shards),
        "documents": manifest.num_documents,
        "tokens": manifest.num_tokens,
        "text_bytes": manifest.num_text_bytes,
        "tokens_per_byte": round(manifest.num_tokens / manifest.num_text_bytes, 4),
        "tokens_per_document_min": int(lengths.min()),
        "tokens_per_document_median": float(np.median(lengths)),
        "tokens_per_document_mean": round(float(lengths.mean()), 1),
        "tokens_per_document_max": int(lengths.max()),
        "vocab_size": manifest.vocab_size,
        "dtype": manifest.dtype,
        "tokenizer": os.path.normpath(manifest.tokenizer_folder(folder)),
        "fingerprint": manifest.fingerprint,
    }
