"""Core attention against the plain formula: every mask, on SDPA's kernels and on FlexAttention's.

Dims: Q query positions, K key positions, B batch, N query heads, G key/value heads, D head.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.transformer.enums import AttnMaskType
from torch.nn.attention import flex_attention as torch_flex

from pipeline.distributed import single_process
from pipeline.models import attention, gpt
from pipeline.models.attention import SdpaCoreAttention
from pipeline.models.documents import Documents
from pipeline.models.execution import UNSPLIT, Execution
from pipeline.models.key_ranges import KeyRanges, of_documents
from pipeline.models.parameters import initialize
from pipeline.models.pipeline_layer import LayerStack
from pipeline.models.transformer_config import transformer_config
from tests.small_models import VOCAB_SIZE, run_config

# Sums in another order, over up to 40 keys of numbers near 1: measured 1e-6.
TOLERANCE = {"atol": 1e-5, "rtol": 0.0}
NUM_HEADS, HEAD_DIM = 4, 8
SDPA_KERNELS = ("flash", "cudnn", "fmha")  # flash, cuDNN's, and the memory-efficient one


@pytest.fixture(autouse=True)
def world(request: pytest.FixtureRequest) -> Iterator[None]:
    """One process on the CPU, for which torch is told that its device is one; not where a test runs on a GPU."""
    with nullcontext() if request.node.get_closest_marker("gpu") else single_process(seed=3):
        yield


def core(*, dropout: float = 0.0, **kwargs: Any) -> SdpaCoreAttention:
    config = transformer_config(run_config(attention_dropout=dropout).model, UNSPLIT)
    return SdpaCoreAttention(config, **kwargs)


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of attention.

    Attributes:
        is_causal: by the kernel's flag or by ranges of keys.
        documents: lengths of the documents of the first sample; the second is one document.
        padding: keys at the end of the second sample that are not to be seen.
    """

    name: str
    queries: int = 12
    keys: int = 12
    num_groups: int = NUM_HEADS
    is_causal: bool = False
    window: int | None = None
    documents: tuple[int, ...] = ()
    padding: int = 0
    has_bias: bool = False
    scale: float | None = None

    @property
    def ids_BS(self) -> torch.Tensor:
        first = [index for index, length in enumerate(self.documents) for _ in range(length)]
        return torch.tensor([first, [0] * self.keys])

    def mask(self) -> torch.Tensor | KeyRanges | None:
        """What the layer around it hands in."""
        if self.documents:
            return of_documents(self.ids_BS)
        return self.unpadded[:, None, None] if self.padding else None

    @property
    def unpadded(self) -> torch.Tensor:
        """Which keys are no padding, [B, K]."""
        place_K = torch.arange(self.keys)
        return torch.stack([place_K >= 0, place_K < self.keys - self.padding])

    def seen(self) -> torch.Tensor:
        """Which keys each query sees, [B, 1, Q, K], by definition."""
        query_Q1, key_K = torch.arange(self.queries)[:, None], torch.arange(self.keys)
        seen_BQK = self.unpadded[:, None].expand(2, self.queries, self.keys)
        if self.is_causal:
            seen_BQK = seen_BQK & (key_K <= query_Q1)
        if self.window:
            seen_BQK = seen_BQK & (query_Q1 - key_K < self.window)
        if self.documents:
            seen_BQK = seen_BQK & (self.ids_BS[:, :, None] == self.ids_BS[:, None])
        return seen_BQK.unsqueeze(1)


CASES = (
    Case(name="bidirectional"),
    Case(name="bidirectional_padded", padding=5),
    Case(name="cross", queries=7, keys=11),
    Case(name="cross_padded_grouped", queries=7, keys=11, padding=3, num_groups=2),
    Case(name="causal", is_causal=True),
    Case(name="causal_grouped", is_causal=True, num_groups=1),
    Case(name="causal_scaled", is_causal=True, scale=1.0),
    Case(name="one_token", queries=1, keys=1, is_causal=True, window=1),
    Case(name="window", is_causal=True, window=5),
    Case(name="window_of_one", is_causal=True, window=1),
    Case(name="window_of_all", is_causal=True, window=12),
    Case(name="window_beyond_all", is_causal=True, window=4096, num_groups=2),
    Case(name="documents", is_causal=True, documents=(5, 1, 6)),
    Case(name="documents_in_window", is_causal=True, documents=(5, 1, 6), window=3, num_groups=2),
    Case(name="biased", has_bias=True),
    Case(name="biased_padded", has_bias=True, padding=5, scale=1.0),
    Case(name="biased_causal", has_bias=True, is_causal=True, scale=1.0),
    Case(name="biased_documents", has_bias=True, is_causal=True, documents=(5, 7)),
)
FLEX_CASES = tuple(
    Case(name=f"{case.name}_long", queries=300, keys=300, is_causal=True, num_groups=case.num_groups, **values)
    for case, values in (
        (CASES[8], {"window": 70}),
        (CASES[12], {"documents": (130, 1, 169)}),
        (CASES[13], {"documents": (130, 1, 169), "window": 60}),
    )
)


def inputs_of(case: Case) -> list[torch.Tensor]:
    """Query, key and value, and the bias where there is one."""
    found = [noise(case.queries, 2, NUM_HEADS, HEAD_DIM, seed=0)]
    found += [noise(case.keys, 2, case.num_groups, HEAD_DIM, seed=seed) for seed in (1, 2)]
    return [*found, noise(1, NUM_HEADS, case.queries, case.keys, seed=3)] if case.has_bias else found


def attend(module: SdpaCoreAttention, case: Case, tensors: list[torch.Tensor]) -> torch.Tensor:
    query, key, value, *bias = tensors
    return module(
        query,
        key,
        value,
        case.mask(),
        attn_mask_type=AttnMaskType.causal if case.is_causal else AttnMaskType.padding,
        attention_bias=bias[0] if bias else None,
    )


def plain(case: Case, tensors: list[torch.Tensor]) -> torch.Tensor:
    """The formula, in which nothing is left to a kernel."""
    query, key, value, *bias = tensors
    key, value = (tensor.repeat_interleave(NUM_HEADS // case.num_groups, dim=2) for tensor in (key, value))
    scores_BNQK = torch.einsum("qbnd,kbnd->bnqk", query, key) * (case.scale or HEAD_DIM**-0.5)
    if bias:
        scores_BNQK = scores_BNQK + bias[0]
    weights_BNQK = scores_BNQK.masked_fill(~case.seen(), -torch.inf).softmax(-1)
    return torch.einsum("bnqk,kbnd->qbnd", weights_BNQK, value).flatten(2)


def compare(case: Case, module: SdpaCoreAttention) -> None:
    """Outputs and gradients of `module` are those of the formula."""
    tensors = inputs_of(case)
    found, expected = attend(module, case, tensors), plain(case, tensors)
    assert found.shape == (case.queries, 2, NUM_HEADS * HEAD_DIM)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    upstream = noise(*expected.shape, seed=9).detach()
    both = (torch.autograd.grad(output, tensors, upstream) for output in (found, expected))
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCE)


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_the_plain_formula(case: Case, recomputes: bool) -> None:
    module = core(window=case.window, softmax_scale=case.scale)
    module.recomputes = recomputes
    compare(case, module)


@pytest.fixture
def plain_flex() -> Iterator[list[Any]]:
    """FlexAttention without its kernel, which has no gradients on a CPU: the same formula over the same blocks."""
    calls: list[Any] = []

    def called(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(kwargs["block_mask"])
        return torch_flex.flex_attention(*args, **kwargs)

    with (
        mock.patch.object(attention, "_suits_flex", return_value=True),
        mock.patch.object(attention, "_compiled_flex", return_value=called),
        mock.patch.object(torch_flex, "_validate_device"),  # it refuses gradients on a CPU
    ):
        yield calls


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("case", FLEX_CASES, ids=lambda case: case.name)
def test_flex_attention_is_the_plain_formula(case: Case, plain_flex: list[Any]) -> None:
    compare(case, core(window=case.window))
    assert len(plain_flex) == 1


@pytest.mark.parametrize("has_bias", [False, True])
def test_what_flex_attention_does_not_know_has_a_square_mask(has_bias: bool, plain_flex: list[Any]) -> None:
    case = Case(name="", is_causal=True, documents=(5, 7), has_bias=has_bias)
    attend(core(dropout=0.0 if has_bias else 0.5), case, inputs_of(case))
    assert not plain_flex


def gradients(model: LayerStack, carried: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    logits_SBV = model(carried)
    upstream = noise(*logits_SBV.shape, seed=1).detach()
    return logits_SBV, list(torch.autograd.grad(logits_SBV, list(model.parameters()), upstream))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_a_model_is_the_same_on_flex_attention(recompute: Any, plain_flex: list[Any]) -> None:
    """Grouped queries, documents and a window; the blocks are made once for both layers."""
    config = run_config(architecture="mistral", sliding_window=50, num_key_value_heads=2, seq_len=140).model
    layers = gpt.pipeline_layers(config, Execution(documents=Documents(attend_within=True), recompute=recompute))
    model = LayerStack(layers)
    initialize(model, gpt.parameter_table(config), seed=3, tensor_rank=0, tensor_parallel_size=1)
    ids_BS = torch.randint(VOCAB_SIZE, (2, 140), generator=torch.Generator().manual_seed(0))
    carried = ids_BS, torch.tensor([[0] * 60 + [1] * 80, [0] * 139 + [1]])
    found = gradients(model, carried)
    assert len({id(blocks) for blocks in plain_flex}) == 1 < len(plain_flex)
    with mock.patch.object(attention, "_suits_flex", return_value=False):
        expected = gradients(model, carried)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)  # of gradients up to 1e3; measured 2e-4


@pytest.mark.parametrize("case", [CASES[0], CASES[4], CASES[8], CASES[14]], ids=lambda case: case.name)
def test_dropout_draws_from_this_rank_s_own_stream(case: Case) -> None:
    module, tensors = core(dropout=0.5, window=case.window), inputs_of(case)
    shared, own = torch.get_rng_state(), get_cuda_rng_tracker().get_states()
    first, second = (attend(module, case, tensors) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), shared)
    get_cuda_rng_tracker().set_states(own)
    assert torch.equal(attend(module, case, tensors), first)
    module.eval()
    torch.testing.assert_close(attend(module, case, tensors), plain(case, tensors), **TOLERANCE)


def test_heads_are_dropped_apart() -> None:
    case = Case(name="")
    query, key, value = inputs_of(case)
    alike = [tensor[:, :, :1].expand_as(tensor).detach() for tensor in (query, key, value)]
    heads = attend(core(dropout=0.5), case, alike).unflatten(-1, (NUM_HEADS, HEAD_DIM))
    assert not torch.equal(heads[:, :, 0], heads[:, :, 1])
    assert not torch.equal(heads[:, 0], heads[:, 1])


def kernels_of(case: Case, *, length: int, dtype: torch.dtype) -> str:
    """Names of the kernels of forward and backward pass on a GPU, in one string."""
    device = torch.device("cuda")
    generator = torch.Generator(device).manual_seed(0)
    tensors = [
        torch.randn(length, 2, heads, 64, device=device, dtype=dtype, generator=generator).requires_grad_()
        for heads in (NUM_HEADS, case.num_groups, case.num_groups)
    ]
    ids_BS = (torch.arange(length, device=device) // 100).expand(2, length).contiguous()
    mask = of_documents(ids_BS) if case.documents else None
    module = core(window=case.window)
    module(*tensors, mask, attn_mask_type=AttnMaskType.causal).sum().backward()  # what is compiled is compiled here
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        module(*tensors, mask, attn_mask_type=AttnMaskType.causal).sum().backward()
        torch.cuda.synchronize()
    return " ".join(event.name for event in profile.events()).lower()


@pytest.mark.gpu
@pytest.mark.parametrize("num_groups", [NUM_HEADS, 1])
def test_causal_attention_on_a_gpu_has_a_kernel_of_its_own(num_groups: int) -> None:
    case = Case(name="", is_causal=True, num_groups=num_groups)
    names = kernels_of(case, length=512, dtype=torch.bfloat16)
    assert any(kernel in names for kernel in SDPA_KERNELS), names


@pytest.mark.gpu
@pytest.mark.parametrize("case", FLEX_CASES, ids=lambda case: case.name)
def test_documents_and_windows_on_a_gpu_are_left_to_flex_attention(case: Case) -> None:
    names = kernels_of(case, length=512, dtype=torch.bfloat16)
    assert "triton_tem" in names, names  # of Triton's templates, none but FlexAttention's is in use here
    assert not any(kernel in names for kernel in SDPA_KERNELS), names


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", FLEX_CASES, ids=lambda case: case.name)
def test_flex_attention_s_kernel_is_the_square_mask(case: Case, dtype: torch.dtype) -> None:
    device = torch.device("cuda")
    generator = torch.Generator(device).manual_seed(0)
    tensors = [
        torch.randn(300, 2, heads, 32, device=device, dtype=dtype, generator=generator).requires_grad_()
        for heads in (NUM_HEADS, case.num_groups, case.num_groups)
    ]
    mask, module = of_documents(case.ids_BS.to(device)) if case.documents else None, core(window=case.window)

    def outcome() -> list[torch.Tensor]:
        output = module(*tensors, mask, attn_mask_type=AttnMaskType.causal)
        return [output, *torch.autograd.grad(output, tensors, torch.ones_like(output))]

    found = outcome()
    with mock.patch.object(attention, "_suits_flex", return_value=False):
        expected = outcome()
    # Numbers up to 10, which bf16 rounds to 2^-8 of them; in fp32 sums in another order.
    torch.testing.assert_close(found, expected, atol=0.04 if dtype == torch.bfloat16 else 1e-3, rtol=0)


@pytest.mark.gpu
def test_documents_on_a_gpu_need_no_square_mask() -> None:
    """32,768 positions: a square of bytes would be 1 GiB."""
    length, device = 32768, torch.device("cuda")
    tensors = [torch.randn(length, 1, 1, 64, device=device, dtype=torch.bfloat16).requires_grad_() for _ in range(3)]
    ids_1S = (torch.arange(length, device=device) // 1000)[None]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    core()(*tensors, of_documents(ids_1S), attn_mask_type=AttnMaskType.causal).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 200 * 2**20
