"""Norms against the plain formula, and torch's own."""

from collections.abc import Iterator

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from pipeline.distributed import single_process
from pipeline.models.execution import UNSPLIT, Execution
from pipeline.models.norms import HeadNorm, LayerNorm, RMSNorm, norm_over_hidden, shared_by_slices
from pipeline.models.transformer_config import transformer_config
from tests.small_models import run_config


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    with single_process():
        yield


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_is_that_of_llama_to_the_bit(dtype: torch.dtype) -> None:
    ours, theirs = RMSNorm(8, epsilon=1e-5, is_sliced=False), LlamaRMSNorm(8, eps=1e-5)
    for norm in (ours, theirs):
        norm.weight.data = noise(8).to(dtype)
    hidden = noise(5, 2, 8).to(dtype)
    assert torch.equal(ours(hidden), theirs(hidden))
    assert ours(hidden).dtype == dtype


def test_layer_norm_is_that_of_torch() -> None:
    ours, theirs = LayerNorm(8, epsilon=1e-5, is_sliced=False), torch.nn.LayerNorm(8, eps=1e-5)
    for norm in (ours, theirs):
        norm.weight.data, norm.bias.data = noise(8), noise(1, 8)[0] + 1
    assert torch.equal(ours(noise(5, 2, 8)), theirs(noise(5, 2, 8)))


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
@pytest.mark.parametrize("epsilon", [1e-12, 1.0])
def test_epsilon_is_added_to_the_variance(kind: type[RMSNorm] | type[LayerNorm], epsilon: float) -> None:
    hidden = torch.tensor([[1.0, -1.0]])
    found = kind(2, epsilon=epsilon, is_sliced=False)(hidden)
    assert float(found[0, 0].detach()) == pytest.approx((1 + epsilon) ** -0.5, rel=1e-6)


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
def test_a_constant_row_is_finite(kind: type[RMSNorm] | type[LayerNorm]) -> None:
    assert kind(4, epsilon=1e-5, is_sliced=False)(torch.zeros(1, 4)).isfinite().all()


@pytest.mark.parametrize(("architecture", "kind"), [("llama", RMSNorm), ("gpt2", LayerNorm)])
@pytest.mark.parametrize("sliced", [False, True])
def test_sequence_parallelism_slices_the_residual_stream(architecture: str, kind: type, sliced: bool) -> None:
    model = run_config(architecture=architecture).model
    execution = Execution(tensor_parallel_size=2, sequence_parallel=True) if sliced else UNSPLIT
    norm = norm_over_hidden(transformer_config(model, execution))
    assert isinstance(norm, kind)
    assert norm.is_sliced is sliced


@pytest.mark.parametrize("size", [1, 2])
def test_tensor_parallelism_slices_the_heads(size: int) -> None:
    config = transformer_config(run_config().model, Execution(tensor_parallel_size=size))
    assert HeadNorm(hidden_size=8, config=config, eps=1e-5).is_sliced is (size > 1)


def test_a_parameter_of_one_rank_is_left_as_it_is() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    assert shared_by_slices(weight, is_sliced=False) is weight
    assert torch.equal(shared_by_slices(weight, is_sliced=True), weight)
