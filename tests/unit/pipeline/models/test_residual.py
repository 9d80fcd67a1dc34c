"""What joins the residual stream, and the random streams that dropout draws from."""

from collections.abc import Iterator

import pytest
import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.transformer_config import TransformerConfig

from pipeline.distributed import MODEL_PARALLEL_STREAM, single_process
from pipeline.models.execution import UNSPLIT
from pipeline.models.residual import HiddenDropout, ResidualAdd
from pipeline.models.transformer_config import transformer_config
from tests.small_models import run_config

RATE = 0.25
ONES = torch.ones(100, 4, 25)


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    with single_process(seed=3):
        yield


def config(rate: float = RATE) -> TransformerConfig:
    return transformer_config(run_config(hidden_dropout=rate).model, UNSPLIT)


def sliced(dropout: HiddenDropout) -> HiddenDropout:
    """As it is under sequence parallelism, for which there is no second rank here."""
    dropout.is_sliced = True
    return dropout


def states() -> tuple[torch.Tensor, torch.Tensor]:
    """Of the stream that tensor-parallel ranks share, and of this rank's own."""
    return torch.get_rng_state(), get_cuda_rng_tracker().get_states()[MODEL_PARALLEL_STREAM]


def moved(before: tuple[torch.Tensor, torch.Tensor]) -> tuple[bool, bool]:
    """Which streams were drawn from."""
    shared, own = (not torch.equal(*pair) for pair in zip(before, states(), strict=True))
    return shared, own


@pytest.mark.parametrize("is_sliced", [False, True])
def test_a_share_is_dropped_and_the_rest_scaled(is_sliced: bool) -> None:
    dropout = HiddenDropout(config())
    found = (sliced(dropout) if is_sliced else dropout)(ONES)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / (1 - RATE)], rel=1e-6)
    # 10,000 draws: four standard deviations are 0.017.
    assert float((found == 0).float().mean()) == pytest.approx(RATE, abs=0.018)


def test_activations_that_ranks_share_draw_from_the_stream_that_they_share() -> None:
    before = states()
    HiddenDropout(config())(ONES)
    assert moved(before) == (True, False)


def test_slices_draw_from_each_rank_s_own_stream() -> None:
    before = states()
    first, second = (sliced(HiddenDropout(config()))(ONES) for _ in range(2))
    assert moved(before) == (False, True)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("is_sliced", [False, True])
@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (RATE, False)])
def test_without_dropout_nothing_is_drawn(is_sliced: bool, rate: float, training: bool) -> None:
    dropout = HiddenDropout(config(rate)).train(training)
    before = states()
    assert (sliced(dropout) if is_sliced else dropout)(ONES) is ONES
    assert moved(before) == (False, False)


@pytest.mark.parametrize("is_sliced", [False, True])
def test_bias_and_output_join_the_stream(is_sliced: bool) -> None:
    add = ResidualAdd(config(0.0))
    add.is_sliced = is_sliced
    residual, output, bias = torch.randn(3, 2, 4), torch.randn(3, 2, 4), torch.randn(4)
    assert torch.equal(add(residual, (output, None)), residual + output)
    assert torch.equal(add(residual, (output, bias)), residual + (output + bias))


def test_the_stream_itself_is_not_dropped() -> None:
    add = ResidualAdd(config(0.9))
    found = add(ONES, (torch.zeros_like(ONES), None))
    assert torch.equal(found, ONES)
    assert (add(torch.zeros_like(ONES), (torch.zeros_like(ONES), torch.ones(25))) == 0).float().mean() > 0.8
