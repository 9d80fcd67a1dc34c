"""Every decoder computes the logits and the gradients of transformers' class with the same weights.

Dims: S sequence, B batch, V vocabulary.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch

from pipeline.config.schema import ModelConfig
from pipeline.convert import gpt2_form, llama_form
from pipeline.distributed import single_process
from pipeline.models.documents import Documents
from pipeline.models.execution import Execution
from pipeline.models.families import pipeline_layers
from pipeline.models.losses import TokenLoss
from pipeline.models.pipeline_layer import LayerStack
from pipeline.objectives.samples import IGNORED
from tests.parity.same_model import largest_gradient_difference, ours, theirs
from tests.small_models import run_config

# Sums in another order; measured 2e-6 in logits that deviate by 0.6, and 2e-7 in gradients of 0.1 to 0.4. A gradient
# that is left out, or has a wrong scale, is above 1e-4.
LOGIT_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 2e-6
# What a wrong mapping moves at least.
VISIBLE = 1e-3

LLAMA3 = {
    "rope_scaling": "llama3",
    "rope_factor": 4.0,
    "rope_original_seq_len": 16,
    "rope_theta": 100.0,  # so that some wavelengths of a small head are kept, some are stretched, some lie between
    "seq_len": 64,
}
LINEAR = {"rope_scaling": "linear", "rope_factor": 4.0}
GROUPED, ONE_GROUP = {"num_key_value_heads": 2}, {"num_key_value_heads": 1}
TIED = {"tie_embeddings": True}

SHAPES: Mapping[str, dict[str, Any]] = {
    "llama": {},
    "llama_grouped_tied": {**GROUPED, **TIED},
    "llama_one_group": ONE_GROUP,
    "llama_odd_vocabulary": {"vocab_size": 451},
    "llama_odd_vocabulary_tied": {"vocab_size": 451, **TIED},
    "llama_wide_heads": {"head_dim": 12, **GROUPED},
    "llama_base_and_epsilon": {"rope_theta": 500.0, "norm_epsilon": 1e-2},
    "llama_scaled_as_llama3": {**LLAMA3, **GROUPED},
    "llama_scaled_linearly": {**LINEAR, "seq_len": 64},
    "llama_gelu": {"activation": "gelu"},
    "llama_gelu_tanh": {"activation": "gelu_tanh"},
    "llama_relu": {"activation": "relu"},
    "qwen2": {"architecture": "qwen2"},
    "qwen2_grouped_tied": {"architecture": "qwen2", **GROUPED, **TIED},
    "qwen2_one_group_odd_vocabulary": {"architecture": "qwen2", "vocab_size": 451, **ONE_GROUP},
    "qwen3": {"architecture": "qwen3"},
    "qwen3_grouped_wide_heads": {"architecture": "qwen3", "head_dim": 12, **GROUPED},
    "qwen3_one_group_tied_scaled": {"architecture": "qwen3", **LLAMA3, **ONE_GROUP, **TIED},
    "mistral": {"architecture": "mistral", **GROUPED},
    "mistral_window": {"architecture": "mistral", "sliding_window": 7, **GROUPED},
    "mistral_window_of_itself": {"architecture": "mistral", "sliding_window": 1},
    "mistral_window_of_the_sequence": {"architecture": "mistral", "sliding_window": 24, "head_dim": 12},
    "gpt2": {"architecture": "gpt2"},
    "gpt2_untied_odd_vocabulary": {"architecture": "gpt2", "tie_embeddings": False, "vocab_size": 451},
    "gpt2_odd_heads": {"architecture": "gpt2", "hidden_size": 20, "num_layers": 3},
    "gpt2_gelu": {"architecture": "gpt2", "activation": "gelu"},
    "gpt2_relu": {"architecture": "gpt2", "activation": "relu", "norm_epsilon": 1e-2},
}
EACH_CLASS = ("llama_grouped_tied", "qwen2_grouped_tied", "qwen3", "mistral_window", "gpt2")
of_each_class = pytest.mark.parametrize("shape", [SHAPES[name] for name in EACH_CLASS], ids=EACH_CLASS)


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    with single_process():
        yield


def model_of(shape: Mapping[str, Any]) -> ModelConfig:
    return run_config(**{"init_std": 0.05, **shape}).model


class Sample:
    """A random batch; a third of its labels are ignored, and with padding those of all padded positions."""

    def __init__(self, model: ModelConfig, *, padding: str = "none") -> None:
        generator = torch.Generator().manual_seed(11)
        size = (3, model.seq_len)
        self.ids_BS = torch.randint(model.vocab_size, size, generator=generator)
        labels_BS = torch.randint(model.vocab_size, size, generator=generator)
        ignored_BS = torch.rand(size, generator=generator) < 1 / 3
        lengths_B1 = torch.tensor([[model.seq_len], [model.seq_len - 5], [3]])
        positions_S = torch.arange(model.seq_len)
        self.real_BS = {
            "none": torch.ones(size, dtype=torch.bool),
            "right": positions_S < lengths_B1,
            "left": positions_S >= model.seq_len - lengths_B1,
        }[padding]
        self.labels_BS = labels_BS.masked_fill(ignored_BS | ~self.real_BS, IGNORED)
        self.position_ids_BS = (self.real_BS.cumsum(1) - 1).clamp(min=0)


def backward(
    model: ModelConfig, stack: LayerStack, sample: Sample, inputs: torch.Tensor | tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Ours: the logits, [B, S, V], after a backward pass from the loss of `sample`."""
    logits_SBV = stack(inputs)
    found_BSV = logits_SBV[..., : model.vocab_size].detach().transpose(0, 1).clone()  # the loss writes into them
    loss = TokenLoss()
    loss.num_labels = int((sample.labels_BS != IGNORED).sum())
    loss(logits_SBV, sample.labels_BS).backward()
    return found_BSV


def their_backward(other: Any, sample: Sample, **given: torch.Tensor) -> torch.Tensor:
    """Theirs, likewise."""
    logits_BSV = other(input_ids=sample.ids_BS, use_cache=False, **given).logits
    cross_entropy = torch.nn.functional.cross_entropy
    cross_entropy(logits_BSV.flatten(0, 1), sample.labels_BS.flatten(), ignore_index=IGNORED).backward()
    return logits_BSV.detach()


def assert_same(
    model: ModelConfig,
    stack: LayerStack,
    other: Any,
    sample: Sample,
    found_BSV: torch.Tensor,
    expected_BSV: torch.Tensor,
) -> None:
    difference = (found_BSV - expected_BSV)[sample.real_BS].abs().max()
    assert float(difference) <= LOGIT_TOLERANCE
    assert float(expected_BSV.std()) > 0.1, "logits as small as these would be equal in any model"
    worst, name = largest_gradient_difference(model, stack, other)
    assert worst <= GRADIENT_TOLERANCE, name


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_logits_and_gradients(shape: dict[str, Any]) -> None:
    model = model_of(shape)
    stack, sample = ours(model), Sample(model)
    other = theirs(model, stack)
    found, expected = backward(model, stack, sample, sample.ids_BS), their_backward(other, sample)
    assert_same(model, stack, other, sample, found, expected)


@of_each_class
def test_padding_on_the_right(shape: dict[str, Any]) -> None:
    """Nothing tells ours of it: what comes later is not seen, and has no label."""
    model = model_of(shape)
    stack, sample = ours(model), Sample(model, padding="right")
    other = theirs(model, stack)
    found = backward(model, stack, sample, sample.ids_BS)
    expected = their_backward(other, sample, attention_mask=sample.real_BS.long())
    assert_same(model, stack, other, sample, found, expected)


@of_each_class
def test_padding_on_the_left(shape: dict[str, Any]) -> None:
    """It is a document of its own to ours, and positions begin behind it."""
    model = model_of(shape)
    plain, sample = ours(model), Sample(model, padding="left")
    told_apart = Execution(documents=Documents(attend_within=True, reset_positions=True))
    stack = LayerStack(pipeline_layers(model, told_apart))
    stack.load_state_dict(plain.state_dict())
    other = theirs(model, stack)
    document_ids_BS = sample.real_BS.long()
    found = backward(model, stack, sample, (sample.ids_BS, document_ids_BS, sample.position_ids_BS))
    expected = their_backward(other, sample, attention_mask=sample.real_BS.long(), position_ids=sample.position_ids_BS)
    assert_same(model, stack, other, sample, found, expected)
    with torch.no_grad():
        unaware = plain(sample.ids_BS)[..., : model.vocab_size].transpose(0, 1)
    assert float((unaware - expected)[sample.real_BS].abs().max()) > VISIBLE, "padding is not seen anyway"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("llama", {"rope_theta": 9000.0}),
        ("llama", {"norm_epsilon": 1e-2}),
        ("llama", {"activation": "gelu"}),
        ("llama_scaled_as_llama3", {"rope_scaling": "none", "rope_factor": 1.0}),
        ("llama_scaled_as_llama3", {"rope_high_freq_factor": 3.0}),
        ("llama_scaled_as_llama3", {"rope_original_seq_len": 20}),
        ("llama_scaled_linearly", {"rope_factor": 3.0}),
        ("mistral_window", {"sliding_window": 8}),
        ("mistral_window", {"sliding_window": None}),
        ("gpt2", {"norm_epsilon": 1e-2}),
        ("gpt2_gelu", {"activation": "gelu_tanh"}),
    ],
)
def test_a_wrong_config_is_seen(name: str, wrong: dict[str, Any]) -> None:
    model, other_model = model_of(SHAPES[name]), model_of({**SHAPES[name], **wrong})
    stack, sample = ours(model), Sample(model)
    found, expected = backward(model, stack, sample, sample.ids_BS), their_backward(theirs(other_model, stack), sample)
    assert float((found - expected).abs().max()) > 10 * LOGIT_TOLERANCE


QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@pytest.mark.parametrize(
    ("name", "swapped"),
    [
        ("llama", {"mlp.linear_fc1": ("mlp.up_proj", "mlp.gate_proj")}),
        ("llama", {"self_attention.linear_qkv": (QKV[0], QKV[2], QKV[1])}),
        ("qwen2", {"self_attention.linear_qkv": (QKV[1], QKV[0], QKV[2])}),
        (
            "qwen3",
            {
                "self_attention.q_layernorm": ("self_attn.k_norm",),
                "self_attention.k_layernorm": ("self_attn.q_norm",),
            },
        ),
        ("mistral_window", {"input_norm": ("post_attention_layernorm",), "post_attention_norm": ("input_layernorm",)}),
        ("gpt2", {"input_norm": "ln_2", "post_attention_norm": "ln_1"}),
    ],
)
def test_a_swapped_mapping_is_seen(name: str, swapped: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, form = model_of(SHAPES[name]), gpt2_form if name == "gpt2" else llama_form
    stack, sample = ours(model), Sample(model)
    found, right = backward(model, stack, sample, sample.ids_BS), theirs(model, stack)
    their_backward(right, sample)
    monkeypatch.setattr(form, "LAYER_PARTS", {**form.LAYER_PARTS, **swapped})
    wrong = their_backward(theirs(model, stack), sample)
    assert float((found - wrong).abs().max()) > VISIBLE
    assert largest_gradient_difference(model, stack, right)[0] > VISIBLE
