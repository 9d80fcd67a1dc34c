"""Ranges of keys against their definition, and their blocks against torch's own search for them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask

from pipeline.models.key_ranges import BLOCK, KeyRanges, in_window, of_documents

CPU = torch.device("cpu")


@st.composite
def document_ids(draw: st.DrawFn, lengths: st.SearchStrategy[int]) -> torch.Tensor:
    """Ids of shape [B, S] that do not go back along the sequence."""
    length, num_samples = draw(lengths), draw(st.integers(1, 2))
    rows = [sorted(draw(st.lists(st.integers(0, 4), min_size=length, max_size=length))) for _ in range(num_samples)]
    return torch.tensor(rows)


def seen_by_definition(ids_BS: torch.Tensor, window: int | None) -> torch.Tensor:
    """Of each sample, query and key: the key is of the same document, not later, and not too early; [B, 1, S, S]."""
    num_samples, length = ids_BS.shape
    rows = [
        [
            [
                bool(ids_BS[row, query] == ids_BS[row, key]) and 0 <= query - key < (window or length)
                for key in range(length)
            ]
            for query in range(length)
        ]
        for row in range(num_samples)
    ]
    return torch.tensor(rows).unsqueeze(1)


@given(ids_BS=document_ids(st.integers(1, 12)), window=st.none() | st.integers(1, 14))
def test_a_query_sees_earlier_keys_of_its_document_and_window(ids_BS: torch.Tensor, window: int | None) -> None:
    ranges = in_window(of_documents(ids_BS), window, ids_BS.shape[1], CPU)
    assert ranges is not None
    assert torch.equal(ranges.square_mask, seen_by_definition(ids_BS, window))


def test_a_document_ends_where_the_id_changes() -> None:
    assert of_documents(torch.tensor([[3, 3, 1, 3, 3]])).first_BS.tolist() == [[0, 0, 2, 3, 3]]


@given(length=st.integers(1, 12), window=st.integers(1, 14))
def test_a_window_alone_is_one_document(length: int, window: int) -> None:
    ranges = in_window(None, window, length, CPU)
    if window >= length:
        assert ranges is None, "the kernel's own causal mask is faster"
    else:
        assert ranges is not None
        assert torch.equal(ranges.square_mask, seen_by_definition(torch.zeros(1, length), window))


def listed(counts_BHT: torch.Tensor, indices_BHTT: torch.Tensor) -> list[set[int]]:
    """The blocks of each row."""
    rows = zip(counts_BHT.flatten().tolist(), indices_BHTT.flatten(0, 2).tolist(), strict=True)
    return [set(indices[:count]) for count, indices in rows]


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 17])
@pytest.mark.parametrize("window", [None, 1, 2, BLOCK, BLOCK + 1, 300])
@pytest.mark.parametrize("documents_per_token", [0.0, 0.01, 0.3])
def test_blocks_are_those_that_a_search_finds(length: int, window: int | None, documents_per_token: float) -> None:
    generator = torch.Generator().manual_seed(length)
    ids_BS = (torch.rand(2, length, generator=generator) < documents_per_token).long().cumsum(1)
    ranges = in_window(of_documents(ids_BS), window, length, CPU)
    assert ranges is not None
    found = ranges.block_mask
    searched = create_block_mask(found.mask_mod, 2, None, length, length, device="cpu")
    assert found.shape == searched.shape
    for counts, indices in (
        ("kv_num_blocks", "kv_indices"),
        ("full_kv_num_blocks", "full_kv_indices"),
        ("q_num_blocks", "q_indices"),
        ("full_q_num_blocks", "full_q_indices"),
    ):
        expected = listed(getattr(searched, counts), getattr(searched, indices))
        assert listed(getattr(found, counts), getattr(found, indices)) == expected, counts


def test_blocks_of_a_window_serve_every_sample() -> None:
    ranges = in_window(None, 3, 200, CPU)
    assert ranges is not None
    sees = ranges.block_mask.mask_mod
    head, query = torch.tensor(0), torch.tensor(10)
    for sample in (torch.tensor(0), torch.tensor(7)):
        assert [int(key) for key in torch.arange(200) if sees(sample, head, query, key)] == [8, 9, 10]


def test_most_blocks_of_short_documents_are_left_out() -> None:
    ids_1S = (torch.arange(32 * BLOCK) // BLOCK)[None]
    assert of_documents(ids_1S).block_mask.sparsity() == pytest.approx(100 * (1 - 1 / 32))


def test_ranges_are_made_once_for_a_tensor() -> None:
    ids_BS = torch.tensor([[0, 0, 1, 1]])
    ranges = of_documents(ids_BS)
    assert of_documents(ids_BS) is ranges
    assert ranges.square_mask is ranges.square_mask
    assert ranges.block_mask is ranges.block_mask
    assert in_window(ranges, 1, 4, CPU) is in_window(ranges, 1, 4, CPU)
    assert of_documents(ids_BS.clone()) is not ranges


def test_what_inference_has_made_serves_training() -> None:
    with torch.inference_mode():
        ranges = in_window(None, 2, 150, CPU)
        assert ranges is not None
        made = ranges.square_mask, ranges.block_mask.kv_indices, ranges.first_BS
        given = KeyRanges(torch.zeros(1, 150, dtype=torch.int32)).square_mask
    assert not any(tensor.is_inference() for tensor in (*made, given))
