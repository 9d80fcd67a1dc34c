"""The encoder's table against the model that is built, and what the model computes.

Dims: S sequence, B batch, H hidden, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from pipeline.config.schema import ModelConfig
from pipeline.distributed import single_process
from pipeline.models import bert
from pipeline.models.execution import UNSPLIT
from pipeline.models.losses import TokenLoss
from pipeline.models.pair_loss import PairLoss
from pipeline.models.parameters import initialize
from pipeline.models.pipeline_layer import LayerStack
from pipeline.objectives.samples import IGNORED
from tests.small_encoders import VOCAB_SIZE, model_config

SHAPES: tuple[dict[str, Any], ...] = ({}, {"pair_head": False}, {"num_token_types": 3, "num_layers": 1})
LENGTH = 12


@pytest.fixture(autouse=True, scope="module")
def world() -> Iterator[None]:
    with single_process():
        yield


def build(model: ModelConfig) -> LayerStack:
    stack = LayerStack(bert.pipeline_layers(model, UNSPLIT))
    initialize(stack, bert.parameter_table(model), seed=3, tensor_rank=0, tensor_parallel_size=1)
    return stack


def token_ids(*, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, (2, LENGTH), generator=torch.Generator().manual_seed(seed))


def inputs(ids: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    types = (torch.arange(LENGTH) >= LENGTH // 2).long().expand(2, LENGTH)
    return ids, types, torch.ones_like(ids) if mask is None else mask


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_table_lists_the_parameters_of_the_model(shape: dict[str, Any]) -> None:
    model = model_config(**shape)
    built = {name: tuple(parameter.shape) for name, parameter in build(model).named_parameters()}
    assert built == {row.module_name: row.local_shape(1) for row in bert.parameter_table(model)}


@pytest.mark.parametrize(
    ("kind", "count"), [(transformers.BertForPreTraining, 110_106_428), (transformers.BertForMaskedLM, 109_514_298)]
)
def test_number_of_parameters_of_a_known_model(kind: type[Any], count: int) -> None:
    """That of bert-base-uncased, whose shape transformers' config has by default."""
    with torch.device("meta"):
        built = kind(transformers.BertConfig())
    assert sum(parameter.numel() for parameter in built.parameters()) == count
    shape = {"vocab_size": 30_522, "num_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "seq_len": 512}
    model = model_config(**shape, ffn_hidden_size=3072, pair_head=kind is transformers.BertForPreTraining)
    assert bert.parameter_table(model).num_parameters == count


def test_vectors_and_norms_do_not_decay() -> None:
    for row in bert.parameter_table(model_config()):
        assert row.decay == (len(row.shape) == 2), row.name


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH).filter(any), st.sampled_from(SHAPES))
def test_what_is_masked_is_never_seen_and_all_else_is(visible: list[bool], shape: dict[str, Any]) -> None:
    model = build(model_config(**shape)).eval()
    # Sample n differs from the last one at position n.
    ids = token_ids()[:1].repeat(LENGTH + 1, 1)
    ids[:LENGTH] = (ids[:LENGTH] + torch.eye(LENGTH, dtype=torch.int64)) % VOCAB_SIZE
    mask = torch.tensor(visible).long().expand_as(ids)
    with torch.no_grad():
        logits_SBV = words(model((ids, torch.zeros_like(ids), mask)))[..., :VOCAB_SIZE]
    change_SB = (logits_SBV[:, :LENGTH] - logits_SBV[:, LENGTH:]).abs().amax(-1)
    for position, is_visible in enumerate(visible):
        others_S = torch.arange(LENGTH) != position
        assert change_SB[position, position] > 1e-3
        changes = change_SB[others_S, position]
        assert changes.min() > 1e-4 if is_visible else changes.max() < 1e-5, position


def test_pairs_are_judged_by_the_first_token() -> None:
    model = build(model_config(num_layers=1)).eval()
    mask = torch.ones(2, LENGTH, dtype=torch.int64)
    mask[:, 5] = 0
    ids = token_ids()
    changed = [ids.clone(), ids.clone()]
    changed[0][:, 5] = (ids[:, 5] + 1) % VOCAB_SIZE
    changed[1][:, 6] = (ids[:, 6] + 1) % VOCAB_SIZE
    with torch.no_grad():
        (_, before_B2), (_, unseen_B2), (_, seen_B2) = (model(inputs(one, mask)) for one in (ids, *changed))
    assert before_B2.shape == (2, 2)
    assert torch.equal(before_B2, unseen_B2)
    assert (before_B2 != seen_B2).all()


def test_segments_and_positions_tell_tokens_apart() -> None:
    model = build(model_config()).eval()
    same = torch.full((2, LENGTH), 7)
    with torch.no_grad():
        logits_SBV = words(model(inputs(same)))
        other_SBV = words(model((same, torch.zeros_like(same), torch.ones_like(same))))
    assert len(logits_SBV[:, 0, 0].unique()) == LENGTH
    assert (logits_SBV != other_SBV).any(-1).all()


def test_loss_is_the_mean_over_hidden_tokens_and_that_over_pairs() -> None:
    model = build(model_config()).eval()
    ids, labels, pair_labels = token_ids(), token_ids(seed=1), torch.tensor([1, 0])
    labels[0, 3:] = IGNORED
    loss = PairLoss()
    loss.num_labels = int((labels != IGNORED).sum())
    with torch.no_grad():
        logits_SBV, logits_B2 = model(inputs(ids))
        masked = cross_entropy(logits_SBV[..., :VOCAB_SIZE].flatten(0, 1), labels.t().flatten(), ignore_index=IGNORED)
        pairs = cross_entropy(logits_B2, pair_labels)
        found = loss((logits_SBV.clone(), logits_B2), (labels, pair_labels))
        loss((logits_SBV, logits_B2), (labels, pair_labels))
    assert float(found) == pytest.approx(float(masked + pairs), rel=1e-6)
    expected = {"masked_loss": 2 * float(masked), "pairs_loss": 2 * float(pairs)}
    assert {name: float(part) for name, part in loss.parts.items()} == pytest.approx(expected, rel=1e-6)


def test_without_pairs_the_loss_is_that_of_the_tokens() -> None:
    model = build(model_config(pair_head=False)).eval()
    loss = PairLoss()
    with torch.no_grad():
        logits_SBV = model(inputs(token_ids()))
        expected = TokenLoss()(logits_SBV.clone(), token_ids(seed=1))
        assert torch.equal(loss(logits_SBV, token_ids(seed=1)), expected)
    assert loss.parts == {}


def test_initial_loss_is_that_of_a_guess() -> None:
    model = build(model_config(init_std=0.02)).eval()
    loss = PairLoss()
    loss.num_labels = 2 * LENGTH
    value = loss(model(inputs(token_ids())), (token_ids(seed=1), torch.tensor([0, 1])))
    assert float(value.detach()) == pytest.approx(float(torch.tensor([VOCAB_SIZE, 2.0]).log().sum()), abs=0.05)


def test_padding_of_the_vocabulary_is_never_predicted_and_learns_nothing() -> None:
    model = build(model_config())
    outputs = model(inputs(token_ids()))
    assert outputs[0].shape == (LENGTH, 2, 448)
    assert (outputs[0][..., VOCAB_SIZE:] == torch.finfo(torch.float32).min).all()
    PairLoss()(outputs, (token_ids(seed=1), torch.tensor([0, 1]))).backward()
    for name in ("0.word_embeddings.weight", "4.output_layer.bias"):
        grad = model.get_parameter(name).grad
        assert grad is not None
        assert not grad[VOCAB_SIZE:].any()
        assert grad[:VOCAB_SIZE].any()


def test_the_head_reads_the_embedding_and_has_a_bias_of_its_own() -> None:
    model = build(model_config()).eval()
    last = VOCAB_SIZE - 1  # an id that is no input here
    ids = token_ids() % last
    with torch.no_grad():
        before = words(model(inputs(ids)))
        model.get_parameter("0.word_embeddings.weight")[last, 0] += 1.0
        moved = words(model(inputs(ids)))
        model.get_parameter("4.output_layer.bias")[5] += 1.0
        biased = words(model(inputs(ids)))
    assert torch.equal(before[..., :last], moved[..., :last])
    assert (before[..., last] != moved[..., last]).all()
    torch.testing.assert_close(biased[..., 5], moved[..., 5] + 1.0)
    assert torch.equal(biased[..., 6:VOCAB_SIZE], moved[..., 6:VOCAB_SIZE])


def test_dropout_is_where_bert_has_it() -> None:
    """Behind the norm of the embeddings, and on what attention and MLP add; none of it in evaluation."""
    model = build(model_config(hidden_dropout=0.5, hidden_size=512))
    embedding, layer = (model.get_submodule(str(index)) for index in (0, 1))
    hidden_SBH, mask_BS = embedding(inputs(token_ids()))
    assert float((hidden_SBH == 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    with torch.no_grad():
        for part in ("self_attention.linear_proj", "mlp.linear_fc2"):
            layer.get_parameter(f"{part}.weight").zero_()
            layer.get_parameter(f"{part}.bias").fill_(1.0)
        added_SBH = layer((torch.zeros_like(hidden_SBH), mask_BS))[0]
        # Of 0 or 2 by attention, normalized to -1 or 1, and 0 or 2 by MLP: four values in equal shares.
        assert len(added_SBH[0, 0].round(decimals=4).unique()) == 4
        model.eval()
        assert not (embedding(inputs(token_ids()))[0] == 0).any()
        assert len(layer((torch.zeros_like(hidden_SBH), mask_BS))[0][0, 0].unique()) == 1


def words(outputs: Any) -> torch.Tensor:
    """The logits of the tokens, [S, B, V], of what the model returns."""
    return outputs[0] if isinstance(outputs, tuple) else outputs
