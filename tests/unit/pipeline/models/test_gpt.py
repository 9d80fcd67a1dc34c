"""The decoder's table against the model that is built, and what the model computes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pipeline.config.schema import ModelConfig
from pipeline.distributed import single_process
from pipeline.models import gpt
from pipeline.models.documents import Documents
from pipeline.models.execution import Execution
from pipeline.models.losses import TokenLoss
from pipeline.models.parameters import initialize
from pipeline.models.pipeline_layer import LayerStack
from pipeline.objectives.samples import IGNORED
from tests.small_models import VOCAB_SIZE, run_config

SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"tie_embeddings": True},
    {"num_key_value_heads": 2},
    {"head_dim": 6, "num_key_value_heads": 1},
    {"architecture": "qwen2", "num_key_value_heads": 2},
    {"architecture": "qwen3", "head_dim": 12, "num_key_value_heads": 2},
    {"architecture": "mistral", "sliding_window": 24, "num_key_value_heads": 2},
    {"architecture": "gpt2"},
    {"architecture": "gpt2", "tie_embeddings": False},
)
SIZES = ("vocab_size", "num_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "ffn_hidden_size")
# Published models: the parameters in their folders, architecture, sizes, what else they have.
KNOWN: tuple[tuple[int, str, tuple[int, ...], dict[str, Any]], ...] = (
    (6_738_415_616, "llama", (32000, 32, 4096, 32, 32, 11008), {}),  # Llama 2 7B
    (494_032_768, "qwen2", (151936, 24, 896, 14, 2, 4864), {"tie_embeddings": True}),  # Qwen2.5-0.5B
    (596_049_920, "qwen3", (151936, 28, 1024, 16, 8, 3072), {"tie_embeddings": True, "head_dim": 128}),  # Qwen3-0.6B
    (7_241_732_096, "mistral", (32000, 32, 4096, 32, 8, 14336), {}),  # Mistral 7B
    (124_439_808, "gpt2", (50257, 12, 768, 12, 12, 3072), {"seq_len": 1024}),  # GPT-2
)


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    with single_process():
        yield


def build(model: ModelConfig, documents: Documents = Documents()) -> LayerStack:  # noqa: B008 (it cannot change)
    layers = gpt.pipeline_layers(model, Execution(documents=documents))
    stack = LayerStack(layers)
    initialize(stack, gpt.parameter_table(model), seed=3, tensor_rank=0, tensor_parallel_size=1)
    return stack


def mean_loss(logits_SBV: torch.Tensor, labels: torch.Tensor) -> float:
    loss = TokenLoss()
    loss.num_labels = int((labels != IGNORED).sum())
    return float(loss(logits_SBV, labels))


def token_ids(length: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, (2, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_table_lists_the_parameters_of_the_model(shape: dict[str, Any]) -> None:
    model = run_config(**shape).model
    table = gpt.parameter_table(model)
    built = {name: tuple(parameter.shape) for name, parameter in build(model).named_parameters()}
    assert built == {row.module_name: row.local_shape(1) for row in table}


@pytest.mark.parametrize(("number", "architecture", "sizes", "others"), KNOWN)
def test_number_of_parameters_of_known_models(
    number: int, architecture: str, sizes: tuple[int, ...], others: dict[str, Any]
) -> None:
    model = run_config(architecture=architecture, **dict(zip(SIZES, sizes, strict=True)), **others).model
    assert gpt.parameter_table(model).num_parameters == number


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_what_writes_to_the_residual_stream_starts_smaller(architecture: str) -> None:
    table = gpt.parameter_table(run_config(architecture=architecture, num_layers=8, init_std=0.02).model)
    for row in table:
        if row.local_name.endswith(("linear_proj.weight", "linear_fc2.weight")):
            assert row.init_std == pytest.approx(0.02 / 4)  # of 16 that write
        else:
            assert row.init_std in {0.02, 0.0, None}
        assert row.decay == (len(row.shape) == 2)


@pytest.mark.parametrize("window", [1, 5])
def test_a_window_hides_what_lies_before_it(window: int) -> None:
    """With one layer; each one more lets a position know of another window before."""
    model = build(run_config(architecture="mistral", sliding_window=window, num_layers=1).model)
    ids = token_ids(12)
    changed = ids.clone()
    changed[:, 3] = (changed[:, 3] + 1) % VOCAB_SIZE
    with torch.no_grad():
        differs_S = (model(ids) != model(changed)).flatten(1).any(1)
    assert differs_S.tolist() == [3 <= position < 3 + window for position in range(12)]


def test_learned_positions_are_added_where_the_token_is() -> None:
    model = build(run_config(architecture="gpt2").model)
    ids = token_ids(12)
    with torch.no_grad():
        before = model(ids)
        model.get_parameter("0.positions.weight")[7] += 1.0
        after = model(ids)
    assert torch.equal(before[:7], after[:7])
    assert (before[7] != after[7]).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_position_sees_those_before_it_alone(shape: dict[str, Any]) -> None:
    model = build(run_config(**shape).model)
    ids = token_ids(12)
    changed = ids.clone()
    changed[:, 7] = (changed[:, 7] + 1) % VOCAB_SIZE
    with torch.no_grad():
        logits_SBV, other_SBV = model(ids), model(changed)
    assert torch.equal(logits_SBV[:7], other_SBV[:7])
    assert all((logits_SBV[position] != other_SBV[position]).any() for position in range(7, 12))


@pytest.mark.parametrize(
    ("shape", "reset_positions"),
    # Learned positions are not relative.
    [(shape, reset) for shape in SHAPES for reset in (True, False) if reset or shape.get("architecture") != "gpt2"],
    ids=str,
)
def test_a_document_in_a_sample_is_computed_as_if_it_were_alone(shape: dict[str, Any], reset_positions: bool) -> None:
    config = run_config(**shape).model
    told_apart, plain = build(config, Documents(attend_within=True, reset_positions=reset_positions)), build(config)
    ids = token_ids(12)
    document_ids = torch.tensor([[0] * 5 + [1] * 7, [0] * 1 + [1] * 3 + [2] * 8])
    position_ids = torch.tensor([[*range(5), *range(7)], [0, *range(3), *range(8)]])
    carried = (ids, document_ids, position_ids) if reset_positions else (ids, document_ids)
    with torch.no_grad():
        found_SBV = told_apart(carried)
        for row, (start, stop) in ((0, (0, 5)), (0, (5, 12)), (1, (0, 1)), (1, (1, 4)), (1, (4, 12))):
            alone_SBV = plain(ids[row : row + 1, start:stop])
            # Rotary positions are relative, so that the document may begin anywhere; sums are taken in another order.
            torch.testing.assert_close(found_SBV[start:stop, row : row + 1], alone_SBV, atol=1e-5, rtol=0)
        assert (plain(ids)[5:, 0] - found_SBV[5:, 0]).abs().max() > 1e-3, "the mask does nothing"


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_positions_alone_can_be_reset(architecture: str) -> None:
    config = run_config(architecture=architecture).model
    reset = build(config, Documents(reset_positions=True))
    ids = token_ids(6)
    with torch.no_grad():
        plain_SBV = build(config)(ids)
        torch.testing.assert_close(reset((ids, torch.arange(6).expand(2, 6))), plain_SBV, atol=1e-5, rtol=0)
        other_SBV = reset((ids, torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)))
    torch.testing.assert_close(other_SBV[:3], plain_SBV[:3], atol=1e-5, rtol=0)
    assert (other_SBV[3:] - plain_SBV[3:]).abs().max() > 1e-3


def test_ignored_labels_do_not_count() -> None:
    model = build(run_config().model)
    ids, labels = token_ids(12), token_ids(12, seed=1)
    labels[0, 3:] = IGNORED
    with torch.no_grad():
        logits_SBV = model(ids)
        expected = torch.nn.functional.cross_entropy(
            logits_SBV[..., :VOCAB_SIZE].flatten(0, 1), labels.t().flatten(), ignore_index=IGNORED
        )
        assert mean_loss(logits_SBV, labels) == pytest.approx(float(expected), rel=1e-6)
        assert float(TokenLoss()(logits_SBV, torch.full_like(labels, IGNORED))) == 0


def test_padding_of_the_vocabulary_is_never_predicted() -> None:
    model = build(run_config().model)
    ids, labels = token_ids(12), token_ids(12, seed=1)
    logits_SBV = model(ids)
    assert logits_SBV.shape == (12, 2, 448)
    real = logits_SBV[..., :VOCAB_SIZE]
    expected = torch.nn.functional.cross_entropy(real.flatten(0, 1), labels.t().flatten())
    loss = TokenLoss()(logits_SBV, labels) / labels.numel()
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    loss.backward()
    parameters = dict(model.named_parameters())
    for name in ("0.word_embeddings.weight", "4.output_layer.weight"):
        grad = parameters[name].grad
        assert grad is not None
        assert not grad[VOCAB_SIZE:].any()
        assert grad[:VOCAB_SIZE].any()


def test_a_tied_head_reads_the_embedding() -> None:
    model = build(run_config(tie_embeddings=True).model)
    ids = token_ids(4)
    before = model(ids)
    with torch.no_grad():
        model.get_parameter("0.word_embeddings.weight")[VOCAB_SIZE - 1] += 1.0  # an id that is no input here
    after = model(ids)
    assert VOCAB_SIZE - 1 not in ids
    assert torch.equal(before[..., : VOCAB_SIZE - 1], after[..., : VOCAB_SIZE - 1])
    assert (before[..., VOCAB_SIZE - 1] != after[..., VOCAB_SIZE - 1]).all()


def test_initial_loss_is_that_of_a_guess() -> None:
    model = build(run_config(init_std=0.02).model)
    loss = TokenLoss()(model(token_ids(24)), token_ids(24, seed=1)) / 48
    assert float(loss) == pytest.approx(torch.tensor(float(VOCAB_SIZE)).log().item(), abs=0.05)
