"""Next-token prediction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.objectives import causal
from pipeline.objectives.causal import Causal
from pipeline.objectives.fim import Fim
from pipeline.objectives.samples import IGNORED, Windows
from tests.unit.pipeline.objectives.vocabularies import vocabulary


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_each_label_is_the_token_after_its_input(dtype: type) -> None:
    windows = np.array([[5, 6, 7, 65535], [1, 2, 3, 4]]).astype(dtype)
    assert windows.shape[1] == causal.window_length(3)
    inputs, labels = causal.inputs_and_labels(windows)
    assert inputs.tolist() == [[5, 6, 7], [1, 2, 3]]
    assert labels.tolist() == [[6, 7, 65535], [2, 3, 4]]
    assert inputs.dtype == labels.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_plain_batches_share_memory(dtype: type) -> None:
    tokens = np.array([[5, 6, 7, 65535], [1, 2, 3, 4]]).astype(dtype)
    batch = Causal(seq_len=3).batch(Windows(tokens=tokens, lengths=np.array([4, 4])), np.arange(2))
    assert list(batch) == ["input_ids", "labels"]
    assert batch["input_ids"].tolist() == [[5, 6, 7], [1, 2, 3]]
    assert batch["labels"].tolist() == [[6, 7, 65535], [2, 3, 4]]
    assert batch["input_ids"].dtype == batch["labels"].dtype == np.int32
    assert np.shares_memory(batch["input_ids"], batch["labels"])


@st.composite
def marked_windows(draw: st.DrawFn) -> Windows:
    """Windows of any filling, with documents that begin anywhere, or nowhere."""
    rows, width = draw(st.integers(0, 4)), draw(st.integers(2, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return Windows(
        tokens=random.integers(0, 60_000, (rows, width)).astype(draw(st.sampled_from([np.uint16, np.int32]))),
        lengths=random.integers(0, width + 1, rows) if draw(st.booleans()) else np.full(rows, width),
        starts_document=random.random((rows, width)) < draw(st.sampled_from([0, 0.1, 0.5, 1])),
    )


@given(windows=marked_windows(), reset=st.booleans(), within=st.booleans())
def test_batches_are_those_of_the_definition(windows: Windows, reset: bool, within: bool) -> None:
    num_rows, width = windows.tokens.shape
    before = windows.tokens.copy()
    objective = Causal(seq_len=width - 1, reset_positions=reset, within_documents=within)
    batch = objective.batch(windows, np.arange(num_rows))
    assert objective.needs_documents == (reset or within)
    assert list(batch) == ["input_ids", "labels", *["position_ids"] * reset, *["document_ids"] * within]
    assert all(array.dtype == np.int32 and array.shape == (num_rows, width - 1) for array in batch.values())
    for row in range(num_rows):
        tokens, starts, length = windows.tokens[row], windows.starts_document[row], windows.lengths[row]
        document = position = 0
        for index in range(width - 1):
            if index and starts[index]:
                document, position = document + 1, 0
            label = tokens[index + 1]
            if index + 1 >= length or (within and starts[index + 1]):
                label = IGNORED
            assert batch["input_ids"][row, index] == tokens[index]
            assert batch["labels"][row, index] == label
            assert not reset or batch["position_ids"][row, index] == position
            assert not within or batch["document_ids"][row, index] == document
            position += 1
    assert np.array_equal(windows.tokens, before), "what was read was changed"


def test_positions_and_documents_follow_the_permuted_text() -> None:
    words = vocabulary(fim_ids=(2, 3, 4))
    fim = Fim(vocabulary=words, rate=1, seed=0)
    starts = np.zeros((1, 31), np.bool_)
    starts[0, [10, 20]] = True
    tokens = np.arange(100, 131)[None]
    tokens[0, [9, 19]] = words.eod_id
    windows = Windows(tokens=tokens, lengths=np.array([31]), starts_document=starts)
    objective = Causal(seq_len=30, fim=fim, reset_positions=True, within_documents=True)
    batch = objective.batch(windows, np.array([3]))
    assert objective.needs_documents
    ends = np.flatnonzero(batch["input_ids"][0] == words.eod_id)
    assert ends.tolist() == [12, 25], "each document gained three tokens"
    assert batch["position_ids"][0].tolist() == [*range(13), *range(13), *range(4)]
    assert batch["document_ids"][0].tolist() == [0] * 13 + [1] * 13 + [2] * 4
    assert (batch["labels"][0, ends] == IGNORED).all()


def test_reading_without_marks_is_our_own_mistake() -> None:
    windows = Windows(tokens=np.zeros((1, 4), np.int32), lengths=np.array([4]))
    with pytest.raises(AssertionError, match="mark where documents begin"):
        Causal(seq_len=3, reset_positions=True).batch(windows, np.arange(1))
