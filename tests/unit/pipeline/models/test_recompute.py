"""Recomputation changes no bit of losses and gradients, and keeps less."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, get_args

import pytest
import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.tensor_parallel.random import initialize_rng_tracker

from pipeline.config.architectures import ArchitectureName
from pipeline.config.schema import ModelConfig
from pipeline.distributed import MODEL_PARALLEL_STREAM, seed_streams, single_process
from pipeline.models import gpt
from pipeline.models.documents import ONE_DOCUMENT, Carried, Documents
from pipeline.models.execution import Execution, Recompute
from pipeline.models.families import parameter_table, pipeline_layers
from pipeline.models.losses import TokenLoss
from pipeline.models.parameters import initialize
from pipeline.models.pipeline_layer import LayerStack
from pipeline.models.recompute import recomputed
from pipeline.topology import Coordinate
from tests.small_models import VOCAB_SIZE, run_config

MODES: tuple[Recompute, ...] = get_args(Recompute)
DROPOUTS: tuple[dict[str, float], ...] = (
    {},
    {"hidden_dropout": 0.1, "attention_dropout": 0.1},
    {"hidden_dropout": 0.5},
    {"attention_dropout": 0.5},
)
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "num_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "ffn_hidden_size": 48,
    "seq_len": 24,
}
TOLD_APART = Documents(attend_within=True, reset_positions=True)


@pytest.fixture(autouse=True)
def world(request: pytest.FixtureRequest) -> Iterator[None]:
    with nullcontext() if request.node.get_closest_marker("gpu") else single_process():
        yield


def seed() -> None:
    seed_streams(7, Coordinate(pipeline=0, data=0, tensor=0))


def build(model: ModelConfig, recompute: Recompute, documents: Documents = ONE_DOCUMENT) -> LayerStack:
    stack = LayerStack(pipeline_layers(model, Execution(recompute=recompute, documents=documents)))
    initialize(stack, parameter_table(model), seed=3, tensor_rank=0, tensor_parallel_size=1)
    return stack


def batch(documents: Documents) -> tuple[Carried, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids, labels = (torch.randint(VOCAB_SIZE, (2, 24), generator=generator) for _ in range(2))
    apart = torch.arange(24).expand(2, 24) // 9, torch.arange(24).expand(2, 24) % 9
    return (ids, *apart) if documents.attend_within else ids, labels


def train_twice(model: ModelConfig, recompute: Recompute, documents: Documents) -> list[torch.Tensor]:
    """Two micro-batches forward, then both backward as a pipeline does: losses, gradients, and what is drawn next."""
    stack = build(model, recompute, documents)
    inputs, labels = batch(documents)
    seed()
    losses = [TokenLoss()(stack(inputs), labels) for _ in range(2)]
    for loss in losses:
        loss.backward()
    gradients = [parameter.grad for parameter in stack.parameters()]
    assert all(gradient is not None for gradient in gradients)
    with get_cuda_rng_tracker().fork():
        own = torch.rand(3)
    return [*losses, *(gradient for gradient in gradients if gradient is not None), torch.rand(3), own]


@pytest.mark.parametrize("documents", [ONE_DOCUMENT, TOLD_APART], ids=["one", "documents"])
@pytest.mark.parametrize("dropout", DROPOUTS, ids=str)
def test_losses_and_gradients_are_the_same_to_the_bit(dropout: dict[str, float], documents: Documents) -> None:
    model = run_config(**dropout).model
    expected, *others = (train_twice(model, mode, documents) for mode in MODES)
    if dropout:
        assert not torch.equal(expected[0], expected[1]), "both micro-batches drew the same mask"
    for mode, found in zip(MODES[1:], others, strict=True):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True)), mode


@pytest.mark.parametrize("architecture", ["bert", "t5", "gpt2"])
def test_every_family_recomputes(architecture: ArchitectureName) -> None:
    """Layers that hand on a mask, a table of positions, or the encoder's output beside the hidden states."""
    model = ModelConfig(architecture=architecture, **SHAPE, hidden_dropout=0.1, attention_dropout=0.1)
    ids_BS = batch(ONE_DOCUMENT)[1]
    mask_BS = (torch.arange(24) < torch.tensor([[24], [17]])).long()
    inputs = {"bert": (ids_BS, mask_BS, mask_BS), "t5": (ids_BS, mask_BS, ids_BS), "gpt2": ids_BS}[architecture]
    found = []
    for mode in MODES:
        stack = build(model, mode)
        seed()
        outputs = stack(inputs)
        logits_SBV = (outputs[0] if isinstance(outputs, tuple) else outputs)[..., :VOCAB_SIZE]
        weights = list(stack.parameters())
        gradients = torch.autograd.grad(logits_SBV.log_softmax(-1).square().mean(), weights, allow_unused=True)
        found.append((num_saved(model, mode, inputs), [logits_SBV, *(one for one in gradients if one is not None)]))
    (none, expected), *others = found
    for num_tensors, tensors in others:
        assert num_tensors < none
        assert all(torch.equal(*pair) for pair in zip(tensors, expected, strict=True))
    assert others[1][0] < others[0][0]


def num_saved(model: ModelConfig, recompute: Recompute, inputs: Carried) -> int:
    """Tensors that the graph of one forward pass keeps."""
    count = 0

    def saved(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return tensor

    stack = build(model, recompute)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        stack(inputs)
    return count


def bytes_kept(model: ModelConfig, recompute: Recompute) -> int:
    """Memory that the forward pass of one micro-batch has not given back, by torch's allocator."""
    stack, (inputs, labels) = build(model, recompute), batch(ONE_DOCUMENT)
    TokenLoss()(stack(inputs), labels)  # what is made once is made
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        loss = TokenLoss()(stack(inputs), labels)
    assert loss.requires_grad
    return sum(event.self_cpu_memory_usage for event in profile.key_averages())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_more_is_recomputed_the_fewer_tensors_are_kept(dropout: float) -> None:
    model = run_config(attention_dropout=dropout).model
    none, selective, full = (num_saved(model, mode, batch(ONE_DOCUMENT)[0]) for mode in MODES)
    assert none > selective > full


def test_the_more_is_recomputed_the_less_memory_is_kept() -> None:
    """With dropout, whose kernel on a CPU keeps scores and mask; without it attention itself keeps next to nothing."""
    model = run_config(attention_dropout=0.1).model
    none, selective, full = (bytes_kept(model, mode) for mode in MODES)
    scores = 4 * model.num_layers * 2 * model.num_attention_heads * 24 * 24
    assert none - selective > scores
    hidden = 4 * model.num_layers * 2 * 24 * model.hidden_size
    assert selective - full > 10 * hidden


@pytest.mark.parametrize("mode", MODES)
def test_parameters_keep_their_names_and_layers_theirs(mode: Recompute) -> None:
    model = run_config().model
    stack, plain = build(model, mode), build(model, "none")
    assert [name for name, _ in stack.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert isinstance(stack.get_submodule("1"), gpt.PreNormLayer)
    assert type(stack.get_submodule("1")).__name__ == "PreNormLayer"


@pytest.mark.parametrize("mode", MODES)
def test_without_gradients_nothing_is_set_aside(mode: Recompute) -> None:
    stack, (inputs, _) = build(run_config().model, mode), batch(ONE_DOCUMENT)
    with torch.no_grad():
        assert not stack(inputs).requires_grad
    with torch.inference_mode():
        stack(inputs)


def draw_both(scale: torch.Tensor) -> torch.Tensor:
    with get_cuda_rng_tracker().fork():
        own = torch.rand(4, device=scale.device)
    return (scale * torch.rand(4, device=scale.device)).exp() * own


def test_draws_come_again_each_time_the_graph_is_walked() -> None:
    scale, other = (torch.ones(4, requires_grad=True) for _ in range(2))
    seed()
    (expected,) = torch.autograd.grad(draw_both(other).sum(), other)
    seed()
    output = recomputed(draw_both, scale).sum()
    with get_cuda_rng_tracker().fork():
        torch.rand(1)  # the streams have gone on by then
    states = torch.get_rng_state(), get_cuda_rng_tracker().get_states()[MODEL_PARALLEL_STREAM]
    for keep in (True, False):
        (found,) = torch.autograd.grad(output, scale, retain_graph=keep)
        assert torch.equal(found, expected)
    after = torch.get_rng_state(), get_cuda_rng_tracker().get_states()[MODEL_PARALLEL_STREAM]
    assert all(torch.equal(*pair) for pair in zip(states, after, strict=True))


def test_streams_go_on_after_a_failure_in_the_second_call() -> None:
    calls: list[Any] = []

    def fails_later(scale: torch.Tensor) -> torch.Tensor:
        calls.append(scale)
        if len(calls) == 2:
            raise ZeroDivisionError
        return draw_both(scale)

    output = recomputed(fails_later, torch.ones(4, requires_grad=True)).sum()
    before = get_cuda_rng_tracker().get_states()[MODEL_PARALLEL_STREAM]
    with pytest.raises(ZeroDivisionError):
        output.backward()
    assert torch.equal(get_cuda_rng_tracker().get_states()[MODEL_PARALLEL_STREAM], before)


@pytest.mark.gpu
def test_draws_come_again_on_a_gpu() -> None:
    """From megatron-core's own tracker, in place of the one for CPUs."""
    device = torch.device("cuda")
    found = []
    for call in (draw_both, lambda scale: recomputed(draw_both, scale)):
        initialize_rng_tracker(force_reset=True)
        seed()
        scale = torch.ones(4, device=device, requires_grad=True)
        output = call(scale).sum()
        with get_cuda_rng_tracker().fork():
            torch.rand(1, device=device)
        found += [output.detach(), *torch.autograd.grad(output, scale)]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
