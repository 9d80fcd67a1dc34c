"""What travels beside the hidden states, and what is read from it."""

import pytest
import torch

from pipeline.models.documents import ONE_DOCUMENT, Carried, Documents, beside, hidden_of

HIDDEN = torch.zeros(4, 1, 2)
IDS_BS = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
POSITIONS_BS = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 2]])


@pytest.mark.parametrize("inputs", [HIDDEN, (HIDDEN, IDS_BS), (HIDDEN, IDS_BS, POSITIONS_BS)])
def test_hidden_states_change_and_the_others_go_on(inputs: Carried) -> None:
    other = torch.ones(4, 1, 2)
    assert hidden_of(inputs) is HIDDEN
    outputs = beside(inputs, other)
    assert hidden_of(outputs) is other
    if isinstance(inputs, tuple):
        assert isinstance(outputs, tuple)
        assert all(one is two for one, two in zip(outputs[1:], inputs[1:], strict=True))
    else:
        assert outputs is other


def test_nothing_is_told_of_one_document() -> None:
    assert ONE_DOCUMENT.attention_mask(HIDDEN) is None
    assert ONE_DOCUMENT.positions(HIDDEN, 4).tolist() == [[0, 1, 2, 3]]
    angles = torch.rand(4, 1, 1, 2)
    assert ONE_DOCUMENT.angles(HIDDEN, angles) is angles


def test_attention_is_told_of_the_ids() -> None:
    ranges = Documents(attend_within=True).attention_mask((HIDDEN, IDS_BS))
    assert ranges is not None
    assert ranges.first_BS.tolist() == [[0, 0, 2, 2], [0, 1, 1, 1]]


@pytest.mark.parametrize("inputs", [(HIDDEN, POSITIONS_BS), (HIDDEN, IDS_BS, POSITIONS_BS)], ids=len)
def test_positions_come_last(inputs: Carried) -> None:
    documents = Documents(attend_within=len(inputs) == 3, reset_positions=True)
    assert torch.equal(documents.positions(inputs, 4), POSITIONS_BS)
    angles_S11D = torch.arange(4.0)[:, None, None, None].expand(4, 1, 1, 6)
    angles_SB1D = documents.angles(inputs, angles_S11D)
    assert angles_SB1D.shape == (4, 2, 1, 6)
    assert torch.equal(angles_SB1D[:, :, 0, 5], POSITIONS_BS.t().float())
