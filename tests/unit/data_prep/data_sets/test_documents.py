"""Documents with what belongs to them, picked and cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.data_sets.documents import Documents, Sequences
from data_prep.metadata import Lines

# A document is a list of sentences.
written = st.lists(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), max_size=4), max_size=8)


def made(documents: list[list[list[int]]], *, sentences: bool, metadata: bool) -> Documents:
    tokens = [token for document in documents for sentence in document for token in sentence]
    counts = np.array([len(document) for document in documents], np.int64)
    sequences = Sequences(np.array([len(one) for document in documents for one in document], np.int64), counts)
    lines = [f"{sum(map(len, document))}\n".encode() for document in documents]
    return Documents(
        tokens=np.array(tokens, np.uint16),
        lengths=np.array([sum(map(len, document)) for document in documents], np.int64),
        sequences=sequences if sentences else None,
        metadata=Lines(np.frombuffer(b"".join(lines), np.uint8), np.array(list(map(len, lines)), np.int64))
        if metadata
        else None,
    )


def same(one: Documents, other: Documents) -> bool:
    pairs = [(one.tokens, other.tokens), (one.lengths, other.lengths)]
    for ours, theirs in ((one.sequences, other.sequences), (one.metadata, other.metadata)):
        assert (ours is None) == (theirs is None)
        pairs += zip(ours or (), theirs or (), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@given(written, st.booleans(), st.booleans(), st.data())
def test_pick_and_part_are_those_of_lists(
    documents: list[list[list[int]]], sentences: bool, metadata: bool, data: st.DataObject
) -> None:
    kinds = {"sentences": sentences, "metadata": metadata}
    whole = made(documents, **kinds)
    numbers = st.integers(0, max(len(documents) - 1, 0))
    rows = data.draw(st.lists(numbers, max_size=12 if documents else 0))
    assert same(whole.pick(np.array(rows, np.int64)), made([documents[row] for row in rows], **kinds))
    first = data.draw(st.integers(0, len(documents)))
    last = data.draw(st.integers(first, len(documents)))
    assert same(whole.part(first, last), made(documents[first:last], **kinds))


@given(written)
def test_lengths_of_documents(documents: list[list[list[int]]]) -> None:
    whole = made(documents, sentences=True, metadata=False)
    assert whole.sequences is not None
    assert whole.sequences.document_lengths.tolist() == whole.lengths.tolist()


@pytest.mark.parametrize("sentences", [True, False])
def test_a_part_is_not_copied(sentences: bool) -> None:
    whole = made([[[1, 2]], [[3], [4]]], sentences=sentences, metadata=True)
    assert np.shares_memory(whole.part(1, 2).tokens, whole.tokens)
