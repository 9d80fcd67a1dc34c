"""Fingerprints tell tensors apart by their bits and by where they stand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine import replicas
from pipeline.engine.replicas import BITS, Difference, fingerprint

DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])


def tensor(size: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


@given(st.integers(1, 40), DTYPES, st.integers(0, 2**32), st.data())
def test_one_changed_bit_changes_it(size: int, dtype: torch.dtype, seed: int, data: st.DataObject) -> None:
    one = tensor(size, dtype, seed)
    other = one.clone()
    place = data.draw(st.integers(0, size - 1))
    bit = data.draw(st.integers(0, 8 * one.element_size() - 2))
    other.view(BITS[one.element_size()])[place] ^= 1 << bit
    assert fingerprint(one) == fingerprint(one.clone())
    assert fingerprint(one) != fingerprint(other)


@given(st.integers(2, 40), DTYPES, st.integers(0, 2**32), st.data())
def test_an_exchange_of_two_elements_changes_it(size: int, dtype: torch.dtype, seed: int, data: st.DataObject) -> None:
    one = tensor(size, dtype, seed)
    first, second = data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True))
    other = one.clone()
    other[first], other[second] = one[second].clone(), one[first].clone()
    assert (fingerprint(one) == fingerprint(other)) == bool(one[first] == one[second])


def test_changes_that_cancel_in_a_plain_sum_are_seen() -> None:
    """One up and one down, at places whose sums are the same: what rounding does to many numbers."""
    one = torch.zeros(64, dtype=torch.float32)
    seen = {int(fingerprint(one))}
    for step in range(1, 10):
        other = one.clone().view(torch.int32)
        other[0] += 1
        other[step] -= 1
        other[2 * step] -= 1
        other[3 * step] += 1
        seen.add(int(fingerprint(other.view(torch.float32))))
    assert len(seen) == 10


def test_zeros_of_both_signs_and_numbers_that_are_none_are_told_apart() -> None:
    values = [0.0, -0.0, float("nan"), float("inf"), -float("inf")]
    assert len({int(fingerprint(torch.tensor([value]))) for value in values}) == len(values)
    assert fingerprint(torch.tensor([float("nan")])) == fingerprint(torch.tensor([float("nan")]))


def test_a_long_tensor_is_taken_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "CHUNK", 4)
    one = tensor(11, torch.float32, 0)
    swapped = torch.cat([one[4:8], one[:4], one[8:]])
    assert fingerprint(one) == fingerprint(one.clone())
    assert fingerprint(one) != fingerprint(swapped)


def test_layout_in_memory_is_no_difference() -> None:
    one = tensor(12, torch.float32, 0).view(3, 4)
    assert fingerprint(one.t()) == fingerprint(one.t().contiguous())
    assert fingerprint(torch.empty(0)) == 0


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ([[0], [1]], "a.weight differs between rank 0, rank 1"),
        ([[0, 1, 3], [2]], "a.weight of rank 2 differs from that of ranks 0, 1, 3"),
        ([[4, 5], [6, 7]], "a.weight differs between ranks 4, 5, ranks 6, 7"),
        ([[0, 1], [2], [3]], "a.weight differs between ranks 0, 1, rank 2, rank 3"),
    ],
)
def test_the_minority_is_named(ranks: list[list[int]], told: str) -> None:
    assert str(Difference(name="a.weight", ranks=ranks)) == told
