"""Our shards in Megatron-LM's own reader, its shards in ours, and equal bytes from both writers."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.format import bin_path, idx_path, open_shard, token_dtype
from data_prep.writer import ShardWriter

DOCUMENTS = [[5, 6, 7, 2], [2], [], list(range(300)), [65_499, 2]]


@pytest.mark.parametrize("vocab_size", [65_499, 100_000])
def test_shards_are_megatrons(tmp_path: Path, vocab_size: int) -> None:
    from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

    with ShardWriter(tmp_path, "ours", token_dtype(vocab_size)) as writer:
        for tokens in DOCUMENTS:
            writer.append(np.array(tokens))
        writer.commit()
    dataset = IndexedDataset(str(tmp_path / "ours"))
    assert [dataset[i].tolist() for i in range(len(dataset))] == DOCUMENTS
    assert dataset.document_indices.tolist() == list(range(len(DOCUMENTS) + 1))

    theirs = IndexedDatasetBuilder(str(bin_path(tmp_path, "theirs")), dtype=DType.optimal_dtype(vocab_size))
    for document in DOCUMENTS:
        theirs.add_document(np.array(document), [len(document)])
    theirs.finalize(str(idx_path(tmp_path, "theirs")))
    for path in (bin_path, idx_path):
        assert path(tmp_path, "theirs").read_bytes() == path(tmp_path, "ours").read_bytes()

    ids, index = open_shard(tmp_path, "theirs")
    found = np.split(ids, np.cumsum(index.lengths)[:-1])
    assert [part.tolist() for part in found] == DOCUMENTS
