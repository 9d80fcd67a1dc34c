"""The encoder computes what transformers' BertForPreTraining and BertForMaskedLM do, and learns alike.

Dims: S sequence, B batch, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
import transformers

from pipeline.config.schema import ModelConfig
from pipeline.distributed import single_process
from pipeline.models.bert import BERT
from pipeline.models.pipeline_layer import LayerStack
from pipeline.objectives.samples import IGNORED
from tests.parity.same_model import PADDING, largest_gradient_difference, ours, text_mask, theirs
from tests.small_encoders import model_config

# Sums in another order give up to 1e-6 here; one weight that is off by 0.05 gives 4e-3.
TOLERANCE = 1e-4
LENGTH = 21  # of 24 positions
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "gelu_tanh": {"activation": "gelu_tanh"},
    "relu": {"activation": "relu"},
    "odd_vocabulary": {"vocab_size": 451},
    "one_layer": {"num_layers": 1},
    "one_head": {"num_attention_heads": 1},
    "three_segments": {"num_token_types": 3},
    "large_epsilon": {"norm_epsilon": 1e-2},
    "full_length": {"seq_len": LENGTH},
}


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    with single_process():
        yield


class Sample(NamedTuple):
    """Inputs and labels of three samples, int64, [B, S], and [B] for pairs."""

    ids: torch.Tensor
    types: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    pairs: torch.Tensor


class Compared(NamedTuple):
    """Largest absolute differences between both models; `parameter` has the largest one of all gradients."""

    tokens: float
    pairs: float
    loss: float
    gradient: float
    parameter: str


def sample(model: ModelConfig, padding: str) -> Sample:
    generator = torch.Generator().manual_seed(1)
    shape = (3, LENGTH)
    ids = torch.randint(model.vocab_size, shape, generator=generator)
    types = torch.randint(model.num_token_types, shape, generator=generator)
    mask = text_mask(padding, LENGTH)
    is_hidden = (torch.rand(shape, generator=generator) < 0.3) & mask.bool()
    return Sample(ids, types, mask, torch.where(is_hidden, ids, IGNORED), torch.tensor([0, 1, 1]))


def compare(model: ModelConfig, stack: LayerStack, other: transformers.PreTrainedModel, given: Sample) -> Compared:
    """Both models forward and backward."""
    found = stack((given.ids, given.types, given.mask))
    pair_label = {"next_sentence_label": given.pairs} if model.pair_head else {}
    expected = other(
        input_ids=given.ids, token_type_ids=given.types, attention_mask=given.mask, labels=given.labels, **pair_label
    )
    words_SBV, pairs_B2 = found if model.pair_head else (found, torch.zeros(1))
    expected_pairs = expected.seq_relationship_logits if model.pair_head else torch.zeros(1)
    expected_words = expected.prediction_logits if model.pair_head else expected.logits
    # Before the loss, which works in place.
    tokens = (words_SBV[..., : model.vocab_size].transpose(0, 1) - expected_words).detach().abs().max()
    pairs = (pairs_B2 - expected_pairs).detach().abs().max()
    loss = BERT.make_loss()
    loss.num_labels = int((given.labels != IGNORED).sum())
    value = loss(found, (given.labels, given.pairs) if model.pair_head else given.labels)
    value.backward()
    expected.loss.backward()
    difference = (value - expected.loss).detach().abs()
    return Compared(float(tokens), float(pairs), float(difference), *largest_gradient_difference(model, stack, other))


def check(model: ModelConfig, padding: str) -> None:
    stack = ours(model)
    other = theirs(model, stack)
    assert type(other).__name__ == ("BertForPreTraining" if model.pair_head else "BertForMaskedLM")
    found = compare(model, stack, other, sample(model, padding))
    assert max(found[:4]) <= TOLERANCE, found


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("pair_head", [True, False], ids=["pairs", "no_pairs"])
def test_logits_and_gradients_are_equal(shape: dict[str, Any], pair_head: bool) -> None:
    check(model_config(pair_head=pair_head, **shape), "right")


@pytest.mark.parametrize("padding", PADDING)
def test_padding_on_either_side_is_not_seen(padding: str) -> None:
    check(model_config(vocab_size=451), padding)


def test_one_wrong_weight_is_found() -> None:
    model = model_config()
    stack = ours(model)
    other = theirs(model, stack)
    with torch.no_grad():
        other.get_parameter("bert.encoder.layer.1.attention.self.value.weight")[3, 5] += 0.05
    assert compare(model, stack, other, sample(model, "right")).tokens > 10 * TOLERANCE


def test_a_mask_that_is_off_by_one_is_found() -> None:
    model = model_config()
    stack = ours(model)
    given = sample(model, "right")
    longer = given._replace(mask=torch.cat([torch.ones_like(given.mask[:, :1]), given.mask[:, :-1]], dim=1))
    with torch.no_grad():
        found, other = (stack((one.ids, one.types, one.mask))[0] for one in (given, longer))
    assert (found - other)[:, 1:].abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize("name", ["bert.pooler.dense.bias", "cls.predictions.bias", "bert.embeddings.LayerNorm.bias"])
def test_a_gradient_that_is_missing_is_found(name: str) -> None:
    model = model_config()
    stack = ours(model)
    other = theirs(model, stack)
    compare(model, stack, other, sample(model, "right"))
    gradient = other.get_parameter(name).grad
    assert gradient is not None
    gradient.zero_()
    difference, parameter = largest_gradient_difference(model, stack, other)
    assert difference > 10 * TOLERANCE
    assert parameter == name
