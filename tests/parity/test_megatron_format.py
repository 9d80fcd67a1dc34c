"""Our shards in Megatron-LM's own reader, its shards in ours, and equal bytes from both writers."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.data_sets.merge import merge
from data_prep.data_sets.repair import repair_pair
from data_prep.data_sets.shuffle import shuffle
from data_prep.data_sets.verify_pair import verify_pair
from data_prep.errors import DataError
from data_prep.format import bin_path, idx_path, open_shard, token_dtype
from data_prep.tokenizer.loading import load
from data_prep.tokenizing.job import TokenizeConfig
from data_prep.tokenizing.tokenize import tokenize
from data_prep.writer import ShardWriter
from tests.data_sets import read_documents, read_sentences, train_small_tokenizer, write_data_set

DOCUMENTS = [[5, 6, 7, 2], [2], [], list(range(300)), [65_499, 2]]
EOD = 2


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
    report = verify_pair(tmp_path / "theirs", vocab_size=max(vocab_size, 65_500))
    assert (report.num_documents, report.num_tokens) == (len(DOCUMENTS), sum(map(len, DOCUMENTS)))


@settings(max_examples=20)
@given(st.lists(st.lists(st.lists(st.integers(3, 99), min_size=1, max_size=5), max_size=4), min_size=1, max_size=6))
def test_sentences_are_megatrons(tmp_path_factory: pytest.TempPathFactory, documents: list[list[list[int]]]) -> None:
    """As `tools/preprocess_data.py --split-sentences` calls the builder: a sequence a sentence, all in one document."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    folder = write_data_set(tmp_path_factory.mktemp("data") / "ours", [documents], split_sentences="en")
    builder = IndexedDatasetBuilder(str(bin_path(folder, "theirs")), dtype=np.uint16)
    for sentences in documents:
        ids = [token for sentence in sentences for token in sentence]
        builder.add_document(np.array(ids, np.uint16), list(map(len, sentences)))
    builder.finalize(str(idx_path(folder, "theirs")))
    for path in (bin_path, idx_path):
        assert path(folder, "theirs").read_bytes() == path(folder, "shard_00000").read_bytes()
    if not any(documents):
        return  # it cannot map an empty file
    dataset = IndexedDataset(str(folder / "shard_00000"))
    assert [dataset[i].tolist() for i in range(len(dataset))] == [one for document in documents for one in document]
    assert dataset.document_indices.tolist() == [0, *np.cumsum([len(one) for one in documents]).tolist()]
    assert read_sentences(folder) == documents


def test_what_tokenize_makes_of_sentences_is_megatrons(tmp_path: Path) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    texts = [["One sentence.", " Another one!"], ["A third."]]
    tokenizer = load(train_small_tokenizer(tmp_path / "tokenizer"))
    records = [json.dumps({"text": "".join(one)}) for one in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(records))
    config = TokenizeConfig(split_sentences="en")
    tokenize(inputs=[tmp_path / "a.jsonl"], tokenizer=tokenizer.folder, out=tmp_path / "out", config=config)
    dataset = IndexedDataset(str(tmp_path / "out" / "shard_00000"))
    one, another, third = (
        ids.tolist() for ids in tokenizer.encode_batch(["One sentence.", "Another one!", "A third."])
    )
    end = tokenizer.eod_id
    assert [dataset[i].tolist() for i in range(len(dataset))] == [one, [*another, end], [*third, end]]
    assert dataset.document_indices.tolist() == [0, 2, 3]


@settings(max_examples=20)
@given(st.lists(st.lists(st.lists(st.integers(3, 99), min_size=1, max_size=5), max_size=4), min_size=2, max_size=6))
def test_ends_that_megatrons_tool_did_not_count(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[list[int]]]
) -> None:
    """As `tools/preprocess_data.py --append-eod` called the builder: the end is in the ids, not in the lengths."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    prefix = tmp_path_factory.mktemp("pair") / "text_document"
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    for sentences in documents:
        ids = [token for sentence in sentences for token in sentence] + ([EOD] if sentences else [])
        builder.add_document(np.array(ids), [len(sentence) for sentence in sentences])
    builder.finalize(f"{prefix}.idx")
    if not any(documents):
        return
    with pytest.raises(DataError, match=f"shifted: .* the token at each true end is {EOD}"):
        verify_pair(prefix, eod_id=EOD)
    repair_pair(prefix, eod_id=EOD)
    verify_pair(prefix, eod_id=EOD)
    expected = [[*one[:-1], [*one[-1], EOD]] for one in documents if one]
    dataset = IndexedDataset(str(prefix))
    assert [dataset[i].tolist() for i in range(len(dataset))] == [sentence for one in expected for sentence in one]
    ends = np.cumsum([len(one) for one in documents]).tolist()
    assert dataset.document_indices.tolist() == [0, *ends]


def test_what_merge_and_shuffle_make_is_megatrons(tmp_path: Path) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    folders = [write_data_set(tmp_path / name, [[[n, 2], [n, n]]]) for n, name in enumerate("ab")]
    merge(folders, tmp_path / "merged")
    shuffle(folders, tmp_path / "shuffled", seed=1)
    for name, num_shards in (("merged", 2), ("shuffled", 1)):
        shards = [IndexedDataset(str(tmp_path / name / f"shard_{n:05d}")) for n in range(num_shards)]
        found = [shard[i].tolist() for shard in shards for i in range(len(shard))]
        assert found == read_documents(tmp_path / name)
