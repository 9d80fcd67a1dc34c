"""Next-token prediction."""

import numpy as np
import pytest

from pipeline.objectives import causal


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_each_label_is_the_token_after_its_input(dtype: type) -> None:
    windows = np.array([[5, 6, 7, 65535], [1, 2, 3, 4]]).astype(dtype)
    assert windows.shape[1] == causal.window_length(3)
    inputs, labels = causal.inputs_and_labels(windows)
    assert inputs.tolist() == [[5, 6, 7], [1, 2, 3]]
    assert labels.tolist() == [[6, 7, 65535], [2, 3, 4]]
    assert inputs.dtype == labels.dtype == np.int64
