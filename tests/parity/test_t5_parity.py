"""The encoder-decoder computes what transformers' T5ForConditionalGeneration does, and learns alike.

Dims: S encoder positions, T decoder positions, B batch, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
import transformers

from pipeline.config.schema import ModelConfig
from pipeline.distributed import single_process
from pipeline.models.pipeline_layer import LayerStack
from pipeline.models.t5 import T5
from pipeline.objectives.samples import IGNORED
from tests.parity.same_model import PADDING, largest_gradient_difference, ours, text_mask, theirs
from tests.small_t5 import ORIGINAL, model_config

# Sums in another order give up to 6e-6 in a logit and 2e-6 in a gradient; one weight that is off by 0.05 gives 2e-2.
TOLERANCE = 1e-4
LENGTH, TARGET_LENGTH = 21, 13
SHAPES: dict[str, dict[str, Any]] = {
    "1.1": {},
    "original": dict(ORIGINAL),
    "1.1_tied": {"tie_embeddings": True},
    "original_untied": {**ORIGINAL, "tie_embeddings": False},
    "gated_silu": {"activation": "silu"},
    "gated_relu": {"activation": "relu"},
    "gated_exact_gelu": {"activation": "gelu"},
    "gelu": {"activation": "gelu", "gated_mlp": False},
    "gelu_tanh": {"activation": "gelu_tanh", "gated_mlp": False},
    "one_layer": {"num_layers": 1},
    "deep_decoder": {"num_layers": 1, "num_decoder_layers": 3},
    "deep_encoder": {"num_layers": 3, "num_decoder_layers": 1, **ORIGINAL},
    "odd_vocabulary": {"vocab_size": 451},
    "odd_vocabulary_tied": {"vocab_size": 451, **ORIGINAL},
    "wide_heads": {"head_dim": 12},
    "one_head": {"num_attention_heads": 1},
    "few_classes": {"num_relative_buckets": 6, "max_relative_distance": 9},
    "large_epsilon": {"norm_epsilon": 1e-2},
}


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    with single_process():
        yield


class Sample(NamedTuple):
    """Inputs and labels of three samples, int64: [B, S] of the encoder, [B, T] of the decoder."""

    ids: torch.Tensor
    mask: torch.Tensor
    decoder_ids: torch.Tensor
    labels: torch.Tensor


class Compared(NamedTuple):
    """Largest absolute differences between both models; `parameter` has the largest one of all gradients."""

    logits: float
    loss: float
    gradient: float
    parameter: str


def sample(model: ModelConfig, padding: str) -> Sample:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(model.vocab_size, (3, LENGTH), generator=generator)
    mask = text_mask(padding, LENGTH)
    decoder_ids, labels = torch.randint(model.vocab_size, (2, 3, TARGET_LENGTH), generator=generator)
    labels[1, 4:] = IGNORED
    return Sample(ids, mask, decoder_ids, labels)


def compare(model: ModelConfig, stack: LayerStack, other: transformers.PreTrainedModel, given: Sample) -> Compared:
    """Both models forward and backward."""
    found_TBV = stack((given.ids, given.mask, given.decoder_ids))
    expected = other(
        input_ids=given.ids, attention_mask=given.mask, decoder_input_ids=given.decoder_ids, labels=given.labels
    )
    # Before the loss, which works in place.
    logits = (found_TBV[..., : model.vocab_size].transpose(0, 1) - expected.logits).detach().abs().max()
    loss = T5.make_loss()
    loss.num_labels = int((given.labels != IGNORED).sum())
    value = loss(found_TBV, given.labels)
    value.backward()
    expected.loss.backward()
    difference = (value - expected.loss).detach().abs()
    return Compared(float(logits), float(difference), *largest_gradient_difference(model, stack, other))


def check(model: ModelConfig, padding: str) -> None:
    stack = ours(model)
    other = theirs(model, stack)
    assert type(other) is transformers.T5ForConditionalGeneration
    assert (other.lm_head.weight is other.shared.weight) == model.tie_embeddings
    given = sample(model, padding)
    found = compare(model, stack, other, given)
    assert max(found[:3]) <= TOLERANCE, found
    with torch.no_grad():
        logits_TBV = stack((given.ids, given.mask, given.decoder_ids))[..., : model.vocab_size]
    assert logits_TBV.std() > 0.1  # large enough that a wrong model could not hide below the tolerance


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_logits_and_gradients_are_equal(shape: dict[str, Any]) -> None:
    check(model_config(**shape), "right")


@pytest.mark.parametrize("shape", [{}, dict(ORIGINAL)], ids=["1.1", "original"])
@pytest.mark.parametrize("padding", PADDING)
def test_padding_on_either_side_is_not_seen(padding: str, shape: dict[str, Any]) -> None:
    check(model_config(vocab_size=451, **shape), padding)


def test_far_tokens_share_classes_as_in_transformers() -> None:
    """Longer than the distance from where on there is one class."""
    model = model_config(num_relative_buckets=8, max_relative_distance=12)
    stack = ours(model)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(model.vocab_size, (1, 70), generator=generator)
    decoder_ids, labels = torch.randint(model.vocab_size, (2, 1, 40), generator=generator)
    found = compare(model, stack, theirs(model, stack), Sample(ids, torch.ones_like(ids), decoder_ids, labels))
    assert max(found[:3]) <= TOLERANCE, found


WRONG = (
    "decoder.block.1.layer.1.EncDecAttention.v.weight",
    "encoder.block.1.layer.0.SelfAttention.k.weight",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "decoder.block.0.layer.2.DenseReluDense.wi_1.weight",
)


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_weight_is_found(name: str) -> None:
    model = model_config()
    stack = ours(model)
    other = theirs(model, stack)
    with torch.no_grad():
        other.get_parameter(name)[3, 2] += 0.05
    assert compare(model, stack, other, sample(model, "right")).logits > 3 * TOLERANCE


@pytest.mark.parametrize("change", [{"max_relative_distance": 20}, {"norm_epsilon": 1e-2}], ids=str)
def test_a_setting_that_differs_is_found(change: dict[str, Any]) -> None:
    model = model_config()
    stack = ours(model)
    other = theirs(model, stack)
    changed = ours(model.model_copy(update=change))
    changed.load_state_dict(stack.state_dict())
    assert compare(model, changed, other, sample(model, "none")).logits > 3 * TOLERANCE


def test_a_mask_that_is_off_by_one_is_found() -> None:
    model = model_config()
    stack = ours(model)
    given = sample(model, "right")
    longer = torch.cat([torch.ones_like(given.mask[:, :1]), given.mask[:, :-1]], dim=1)
    with torch.no_grad():
        found, other = (stack((given.ids, mask, given.decoder_ids)) for mask in (given.mask, longer))
    assert (found - other)[:, 1:].abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize("name", [WRONG[2], "decoder.final_layer_norm.weight", "lm_head.weight"])
def test_a_gradient_that_is_missing_is_found(name: str) -> None:
    model = model_config()
    stack = ours(model)
    other = theirs(model, stack)
    compare(model, stack, other, sample(model, "right"))
    gradient = other.get_parameter(name).grad
    assert gradient is not None
    gradient.zero_()
    difference, parameter = largest_gradient_difference(model, stack, other)
    assert difference > 3 * TOLERANCE
    assert parameter == name
