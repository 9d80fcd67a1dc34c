"""The encoder-decoder's table against the model that is built, its initial weights, and what the model computes.

Dims: S encoder positions, T decoder positions, B batch, V vocabulary.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from transformers import T5Config, T5ForConditionalGeneration

from pipeline.config.schema import ModelConfig
from pipeline.distributed import single_process
from pipeline.models import t5
from pipeline.models.execution import UNSPLIT, Execution, Recompute
from pipeline.models.losses import TokenLoss
from pipeline.models.parameters import initialize
from pipeline.models.pipeline_layer import LayerStack
from tests.small_t5 import ORIGINAL, VOCAB_SIZE, model_config

SHAPES: tuple[dict[str, Any], ...] = (
    {},
    dict(ORIGINAL),
    {"num_decoder_layers": 1},
    {"num_layers": 1, "num_decoder_layers": 3, "head_dim": 6, **ORIGINAL},
)
LENGTH, TARGET_LENGTH = 14, 9


@pytest.fixture(autouse=True, scope="module")
def world() -> Iterator[None]:
    with single_process():
        yield


def build(model: ModelConfig, execution: Execution = UNSPLIT) -> LayerStack:
    stack = LayerStack(t5.pipeline_layers(model, execution))
    initialize(stack, t5.parameter_table(model), seed=3, tensor_rank=0, tensor_parallel_size=1)
    return stack


@cache
def built_before(shape: str) -> LayerStack:
    """The model of one of SHAPES, made once."""
    return build(model_config(**next(one for one in SHAPES if str(one) == shape)))


def token_ids(length: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, (2, length), generator=torch.Generator().manual_seed(seed))


def inputs(mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = token_ids(LENGTH)
    return ids, torch.ones_like(ids) if mask is None else mask, token_ids(TARGET_LENGTH, seed=1)


def changed(ids: torch.Tensor, where: torch.Tensor | int) -> torch.Tensor:
    other = ids.clone()
    other[:, where] = (other[:, where] + 1) % VOCAB_SIZE
    return other


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_table_lists_the_parameters_of_the_model(shape: dict[str, Any]) -> None:
    model = model_config(**shape)
    built = {name: tuple(parameter.shape) for name, parameter in build(model).named_parameters()}
    assert built == {row.module_name: row.local_shape(1) for row in t5.parameter_table(model)}


KNOWN = {
    "t5-v1_1-small": (76_961_152, {"num_layers": 8, "num_attention_heads": 6, "ffn_hidden_size": 1024}),
    "t5-small": (60_506_624, {"num_layers": 6, "num_attention_heads": 8, "ffn_hidden_size": 2048, **ORIGINAL}),
}


@pytest.mark.parametrize(("count", "shape"), KNOWN.values(), ids=KNOWN.keys())
def test_number_of_parameters_of_a_known_model(count: int, shape: dict[str, Any]) -> None:
    model = model_config(vocab_size=32128, hidden_size=512, head_dim=64, **shape)
    assert t5.parameter_table(model).num_parameters == count
    config = T5Config(
        d_ff=model.ffn_hidden_size,
        num_layers=model.num_layers,
        num_heads=model.num_attention_heads,
        feed_forward_proj="gated-gelu" if model.gated_mlp else "relu",
    )
    with torch.device("meta"):
        tied = T5ForConditionalGeneration(config)  # its class ties the output layer always
    head = 0 if model.tie_embeddings else model.vocab_size * model.hidden_size
    assert sum(parameter.numel() for parameter in tied.parameters()) + head == count


def test_norms_and_relative_positions_do_not_decay() -> None:
    for row in t5.parameter_table(model_config()):
        assert row.decay == (len(row.shape) == 2 and "relative" not in row.name), row.name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_initial_weights_deviate_as_in_transformers(shape: dict[str, Any]) -> None:
    """Names on the left are transformers'; what it draws an output layer from is 1, which is not followed."""
    model = model_config(**shape, init_std=0.5)
    heads, hidden, head_dim = model.num_attention_heads, model.hidden_size, model.head_dim
    q, kv = 0.5 * (hidden * head_dim) ** -0.5, 0.5 * hidden**-0.5
    deviations = {
        "linear_q.weight": q,
        "linear_kv.weight": kv,
        "linear_proj.weight": 0.5 * (heads * head_dim) ** -0.5,
        "linear_fc1.weight": kv,
        "linear_fc2.weight": 0.5 * model.ffn_hidden_size**-0.5,
        "relative_attention_bias.weight": kv,
        "output_layer.weight": kv,
        "word_embeddings.weight": 0.5,
    }
    for row in t5.parameter_table(model):
        value = row.initial_value(1)
        if row.local_name == "self_attention.linear_qkv.weight":
            by_head = value.view(heads, 3, head_dim, hidden)
            for part, deviation in enumerate((q, kv, kv)):
                assert float(by_head[:, part].std()) == pytest.approx(deviation, rel=0.15), (row.name, part)
        elif len(row.shape) == 1:
            assert value.eq(1).all()
        else:
            [deviation] = [known for name, known in deviations.items() if row.name.endswith(name)]
            assert float(value.std()) == pytest.approx(deviation, rel=0.2), row.name


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0.1, 3.0)), min_size=1, max_size=4), st.integers(1, 3))
def test_factors_of_rows_repeat_and_change_no_draw(factors: list[tuple[int, float]], repeats: int) -> None:
    period = [factor for count, factor in factors for _ in range(count)]
    row = replace(
        next(iter(t5.parameter_table(model_config()))), shape=(repeats * len(period), 5), init_factors=tuple(factors)
    )
    plain = replace(row, init_factors=()).initial_value(7)
    assert torch.equal(row.initial_value(7), plain * torch.tensor(period * repeats)[:, None])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_initial_loss_is_near_that_of_a_guess(shape: dict[str, Any]) -> None:
    """Logits that begin with deviation 1 cost half a nat more than equal ones."""
    logits_TBV = build(model_config(**shape))(inputs())
    loss = TokenLoss()(logits_TBV, token_ids(TARGET_LENGTH, seed=2)) / (2 * TARGET_LENGTH)
    assert loss.item() == pytest.approx(math.log(VOCAB_SIZE) + 0.5, abs=0.5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_decoder_position_sees_those_before_it_alone(shape: dict[str, Any]) -> None:
    model = build(model_config(**shape))
    ids, mask, decoder_ids = inputs()
    with torch.no_grad():
        logits_TBV, other_TBV = model((ids, mask, decoder_ids)), model((ids, mask, changed(decoder_ids, 5)))
    assert torch.equal(logits_TBV[:5], other_TBV[:5])
    assert all((logits_TBV[position] != other_TBV[position]).any() for position in range(5, TARGET_LENGTH))


@pytest.mark.parametrize("position", [0, LENGTH // 2, LENGTH - 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_decoder_position_sees_every_encoder_position(shape: dict[str, Any], position: int) -> None:
    model = build(model_config(**shape))
    ids, mask, decoder_ids = inputs()
    with torch.no_grad():
        logits_TBV, other_TBV = model((ids, mask, decoder_ids)), model((changed(ids, position), mask, decoder_ids))
    assert (logits_TBV != other_TBV).any(-1).all()


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH).filter(any), st.sampled_from(SHAPES))
def test_padding_is_not_seen(is_text: list[bool], shape: dict[str, Any]) -> None:
    """Wherever it is, what ids it has does not matter; and text does."""
    model = built_before(str(shape))
    text = torch.tensor(is_text)
    ids, mask, decoder_ids = inputs(text.long().expand(2, LENGTH))
    with torch.no_grad():
        logits_TBV = model((ids, mask, decoder_ids))
        assert torch.equal(logits_TBV, model((changed(ids, ~text), mask, decoder_ids)))
        assert not torch.equal(logits_TBV, model((changed(ids, text), mask, decoder_ids)))


def test_an_input_of_padding_alone_gives_finite_logits() -> None:
    ids, mask, decoder_ids = inputs(torch.zeros(2, LENGTH, dtype=torch.int64))
    logits_TBV = build(model_config())((ids, mask, decoder_ids))
    assert logits_TBV.isfinite().all()


@pytest.mark.parametrize(("length", "target_length"), [(1, 1), (1, 7), (60, 2)])
def test_lengths_come_from_the_batch(length: int, target_length: int) -> None:
    ids = token_ids(length)
    logits_TBV = build(model_config())((ids, torch.ones_like(ids), token_ids(target_length)))
    assert logits_TBV.shape == (target_length, 2, 448)
    assert logits_TBV[..., :VOCAB_SIZE].isfinite().all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_travels_between_stages_can_be_sent(shape: dict[str, Any]) -> None:
    """NCCL sends no bool, and no tensor with gaps; the encoder's table ends with the encoder."""
    model = build(model_config(**shape))
    weight, carried = model.get_submodule("0").weight, inputs()
    for index, source in enumerate(model.weight_from[:-2]):
        layer = model.get_submodule(str(index))
        carried = layer(carried) if source is None else layer(carried, weight)
        assert all(tensor.is_contiguous() for tensor in carried)
        assert {tensor.dtype for tensor in carried} == {torch.float32, torch.int64}
        num_floats = sum(tensor.is_floating_point() for tensor in carried)
        assert num_floats == {"EncoderFinal": 1, "Embedding": 2, "EncoderLayer": 2}.get(type(layer).__name__, 3)


@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputation_changes_no_gradient(recompute: Recompute, dropout: float) -> None:
    model = model_config(hidden_dropout=dropout, attention_dropout=dropout, num_decoder_layers=3)
    streams = get_cuda_rng_tracker().get_states()
    gradients = []
    for execution in (UNSPLIT, Execution(recompute=recompute)):
        built = build(model, execution)
        torch.manual_seed(11)
        get_cuda_rng_tracker().set_states({name: state.clone() for name, state in streams.items()})
        built(inputs())[..., :VOCAB_SIZE].logsumexp(-1).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in built.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        assert gradient.any(), name
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_dropout_acts_in_training_alone() -> None:
    model = build(model_config(hidden_dropout=0.3, attention_dropout=0.3))
    with torch.no_grad():
        assert not torch.equal(model(inputs()), model(inputs()))
        model.eval()
        assert torch.equal(model(inputs()), model(inputs()))
