"""What becomes of the sequences of a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.accounting import Counters
from data_prep.text.document import Batch
from data_prep.tokenizing.sequences import drop_empty, num_filled, with_ending

sequence = st.lists(st.integers(0, 499), max_size=4)
DOCUMENTS = st.lists(st.lists(sequence, max_size=4), max_size=12)


@given(documents=DOCUMENTS, ending=st.sampled_from([None, 7]))
def test_each_document_but_empty_ones_gets_its_end(documents: list[list[list[int]]], ending: int | None) -> None:
    ids = np.array([token for one in documents for tokens in one for token in tokens], np.uint32)
    lengths = np.array([len(tokens) for one in documents for tokens in one], np.int64)
    counts = num_filled(lengths, np.array(list(map(len, documents)), np.int64))
    filled = [[tokens for tokens in one if tokens] for one in documents]
    assert counts.tolist() == list(map(len, filled))

    batch = Batch(texts=list(map(str, documents)), counters=Counters(lines=len(documents), documents=len(documents)))
    drop_empty(batch, counts)
    assert batch.texts == [str(one) for one, kept in zip(documents, filled, strict=True) if kept]
    assert batch.counters.is_complete()

    found, found_lengths = with_ending(ids, lengths[lengths > 0], counts[counts > 0], ending, np.dtype("<u2"))
    expected = [[*one[:-1], one[-1] + ([] if ending is None else [ending])] for one in filled if one]
    assert found.tolist() == [token for one in expected for tokens in one for token in tokens]
    assert found_lengths.tolist() == [len(tokens) for one in expected for tokens in one]


@pytest.mark.parametrize("ending", [None, 7])
def test_no_documents(ending: int | None) -> None:
    none = np.zeros(0, np.int64)
    found, lengths = with_ending(np.zeros(0, np.uint32), none, none, ending, np.dtype("<u2"))
    assert len(found) == len(lengths) == len(num_filled(none, none)) == 0
