"""What stands in for CUDA on a CPU."""

import pytest
import torch

from pipeline import cpu
from pipeline.cpu import CpuRngStatesTracker


def test_a_stream_goes_on_where_it_was_left_and_leaves_the_others_alone() -> None:
    tracker = CpuRngStatesTracker()
    tracker.add("one", seed=1)
    tracker.add("two", seed=2)
    expected = torch.rand(4, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(7)
    with tracker.fork("one"):
        first = torch.rand(2)
    with tracker.fork("two"):
        torch.rand(3)
    with tracker.fork("one"):
        second = torch.rand(2)
    assert torch.equal(torch.cat([first, second]), expected)
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(7)))


def test_states_are_restored() -> None:
    tracker = CpuRngStatesTracker()
    assert not tracker.is_initialized()
    tracker.add("one", seed=1)
    assert tracker.is_initialized()
    saved = tracker.get_states()
    with tracker.fork("one"):
        first = torch.rand(2)
    tracker.set_states(saved)
    with tracker.fork("one"):
        assert torch.equal(torch.rand(2), first)


def test_the_default_stream_comes_back_after_an_error() -> None:
    tracker = CpuRngStatesTracker()
    tracker.add("one", seed=1)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), tracker.fork("one"):
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_is_added_once() -> None:
    tracker = CpuRngStatesTracker()
    tracker.add("one", seed=1)
    with pytest.raises(ValueError, match="one exists already"):
        tracker.add("one", seed=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(5, 7, 3), (64, 96, 130), (1, 1, 1)])
def test_products_of_halves_are_summed_in_fp32_and_rounded_once(
    dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    cpu._multiply_halves_in_fp32()
    torch.manual_seed(0)
    rows, inner, columns = shape
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype).t()
    product = left @ right
    exact = left.double() @ right.double()
    assert product.dtype == dtype
    ulp = torch.finfo(dtype).eps * exact.abs()
    assert ((product.double() - exact).abs() <= 0.51 * ulp + 1e-5 * inner**0.5).all()


def test_gradients_flow_through_products_of_halves() -> None:
    cpu._multiply_halves_in_fp32()
    left = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    right = torch.tensor([[3.0], [4.0]], dtype=torch.bfloat16, requires_grad=True)
    (left @ right).sum().backward()
    assert left.grad is not None
    assert right.grad is not None
    assert left.grad.tolist() == [[3.0, 4.0]]
    assert right.grad.tolist() == [[1.0], [2.0]]


def test_only_halves_on_slow_cpus_are_computed_wider(monkeypatch: pytest.MonkeyPatch) -> None:
    half, wide = torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1)
    monkeypatch.setattr(cpu, "_has_half_instructions", lambda: False)
    assert cpu.product_dtype(half) == cpu.product_dtype(wide) == torch.float32
    assert cpu.product_dtype(half.to("meta")) == torch.bfloat16
    monkeypatch.setattr(cpu, "_has_half_instructions", lambda: True)
    assert cpu.product_dtype(half) == torch.bfloat16
