"""Classes of distance and their scores, against transformers' own and against lookups pair by pair."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.t5.modeling_t5 import T5Attention

from pipeline.distributed import single_process
from pipeline.models.execution import UNSPLIT
from pipeline.models.relative import RelativeTable, relative_bias, relative_buckets
from pipeline.models.transformer_config import transformer_config
from tests.small_t5 import model_config

FARTHEST = 2**20  # positions that a config may ask for


@st.composite
def classes(draw: st.DrawFn) -> tuple[int, int]:
    """A number of classes, and the distance from which on there is one."""
    num_buckets = draw(st.integers(4, 300))
    return num_buckets, draw(st.integers(max(8, num_buckets // 2 + 1), 4096))


@given(classes(), st.booleans(), st.lists(st.integers(-FARTHEST, FARTHEST), min_size=1, max_size=200))
def test_far_distances_have_transformers_classes(
    shape: tuple[int, int], bidirectional: bool, distances: list[int]
) -> None:
    check_classes(torch.tensor(distances), *shape, bidirectional)


@given(classes(), st.booleans())
def test_every_near_distance_has_transformers_class(shape: tuple[int, int], bidirectional: bool) -> None:
    check_classes(torch.arange(-5000, 5001), *shape, bidirectional)


def check_classes(distances: torch.Tensor, num_buckets: int, max_distance: int, bidirectional: bool) -> None:
    found = relative_buckets(distances, bidirectional=bidirectional, num_buckets=num_buckets, max_distance=max_distance)
    expected = T5Attention._relative_position_bucket(distances, bidirectional, num_buckets, max_distance)
    assert torch.equal(found, expected)
    assert found.dtype == torch.int64
    assert 0 <= int(found.min()) <= int(found.max()) < num_buckets


def test_classes_of_the_published_shape() -> None:
    """32 classes up to distance 128, worked out by hand: 8 exact ones on each side, then 8 that widen to 128."""
    buckets = relative_buckets(
        torch.tensor([-1000, -128, -91, -90, -8, -7, 0, 1, 7, 8, 11, 12, 128, 1000]),
        bidirectional=True,
        num_buckets=32,
        max_distance=128,
    )
    assert buckets.tolist() == [15, 15, 15, 14, 8, 7, 0, 17, 23, 24, 24, 25, 31, 31]


def test_a_causal_class_counts_backwards_alone() -> None:
    buckets = relative_buckets(torch.tensor([5, 1, 0, -1, -15]), bidirectional=False, num_buckets=32, max_distance=128)
    assert buckets.tolist() == [0, 0, 0, 1, 15]


@given(st.integers(1, 40), st.booleans(), classes(), st.integers(1, 3))
def test_bias_and_its_gradient_are_those_of_a_lookup_for_each_pair(
    length: int, bidirectional: bool, shape: tuple[int, int], num_heads: int
) -> None:
    num_buckets, max_distance = shape
    table = torch.randn(num_buckets, num_heads, requires_grad=True)
    same_table = table.detach().clone().requires_grad_()
    positions = torch.arange(length)
    buckets = T5Attention._relative_position_bucket(
        positions[None, :] - positions[:, None], bidirectional, num_buckets, max_distance
    )
    expected = same_table[buckets].permute(2, 0, 1)[None]
    found = relative_bias(table, length, bidirectional=bidirectional, max_distance=max_distance)
    assert torch.equal(found, expected)
    upstream = torch.randn(found.shape)
    found.backward(upstream)
    expected.backward(upstream)
    # The same numbers, up to 1600 of them, are added in another order.
    torch.testing.assert_close(table.grad, same_table.grad, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("change", [{"bidirectional": False}, {"max_distance": 64}])
def test_the_comparison_sees_other_classes(change: dict[str, int]) -> None:
    table = torch.randn(32, 2)
    settings = {"bidirectional": True, "max_distance": 128}
    assert not torch.equal(relative_bias(table, 100, **settings), relative_bias(table, 100, **(settings | change)))


@pytest.fixture
def world() -> Iterator[None]:
    with single_process():
        yield


@pytest.mark.usefixtures("world")
def test_what_travels_is_a_copy_through_which_gradients_come_back() -> None:
    table = RelativeTable(transformer_config(model_config(), UNSPLIT), num_buckets=32)
    torch.nn.init.normal_(table.weight)
    copy = table()
    assert copy.data_ptr() != table.weight.data_ptr()
    assert torch.equal(copy, table.weight)
    copy.sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad.eq(1).all()
