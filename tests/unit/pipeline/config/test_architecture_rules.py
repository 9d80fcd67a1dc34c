"""What each architecture lets its user choose, and what it says of keys that it does not read."""

from typing import Any, get_args

import pytest

from pipeline.config.architectures import ARCHITECTURES, ArchitectureName
from pipeline.config.load import build
from pipeline.config.rules import ineffective_settings
from pipeline.config.schema import ModelConfig, RunConfig
from pipeline.errors import ConfigError
from tests.unit.pipeline.config.sections import sections

DECODERS = tuple(name for name, made in ARCHITECTURES.items() if made.family == "gpt")
ROTATING = tuple(name for name in DECODERS if ARCHITECTURES[name].positions == "rotary")


def built(**model: Any) -> RunConfig:
    return build(sections({f"model.{key}": value for key, value in model.items()}), check_data=False)


def refusal(**model: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        built(**model)
    return str(caught.value)


def test_rows_speak_of_keys_that_there_are() -> None:
    for made in ARCHITECTURES.values():
        assert made.fixed <= ModelConfig.model_fields.keys()
        assert made.unread <= ModelConfig.model_fields.keys()
        assert not made.fixed & made.unread


@pytest.mark.parametrize("architecture", get_args(ArchitectureName))
def test_defaults_are_the_architectures_own(architecture: ArchitectureName) -> None:
    made = ARCHITECTURES[architecture]
    model = RunConfig.model_validate(sections({"model.architecture": architecture})).model
    for key in ("activation", "gated_mlp", "norm_epsilon", "tie_embeddings", "init_std"):
        assert getattr(model, key) == getattr(made, key)
    assert (model.num_key_value_heads, model.head_dim) == (4, 16)


@pytest.mark.parametrize("architecture", DECODERS)
def test_the_feed_forward_layer_of_decoders_is_fixed(architecture: ArchitectureName) -> None:
    own = ARCHITECTURES[architecture].gated_mlp
    assert built(architecture=architecture, gated_mlp=own).model.gated_mlp == own
    assert f"model.gated_mlp={not own} is wrong because with model.architecture={architecture} it is {own}" in refusal(
        architecture=architecture, gated_mlp=not own
    )


@pytest.mark.parametrize(
    ("architecture", "key", "wrong", "only"),
    [
        ("qwen2", "head_dim", 32, 16),  # its readers divide hidden_size, whatever the key says
        ("gpt2", "head_dim", 32, 16),
        ("gpt2", "num_key_value_heads", 2, 4),
    ],
)
def test_one_value_only(architecture: str, key: str, wrong: int, only: int) -> None:
    message = refusal(architecture=architecture, **{key: wrong})
    assert f"model.{key}={wrong} is wrong because with model.architecture={architecture} it is {only}" in message
    assert "leave it out, or choose another model.architecture" in message
    assert getattr(built(architecture=architecture, **{key: only}).model, key) == only


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral"])
def test_heads_may_be_of_any_width(architecture: str) -> None:
    model = built(architecture=architecture, head_dim=32, num_key_value_heads=2).model
    assert (model.head_dim, model.num_key_value_heads) == (32, 2)


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("tied", [True, False])
def test_any_decoder_may_be_tied_or_not(architecture: str, tied: bool) -> None:
    assert built(architecture=architecture, tie_embeddings=tied).model.tie_embeddings == tied


@pytest.mark.parametrize("architecture", DECODERS)
def test_keys_that_are_not_read_are_named_once(architecture: ArchitectureName) -> None:
    values: dict[str, Any] = {
        "num_decoder_layers": 3,
        "num_relative_buckets": 16,
        "max_relative_distance": 64,
        "num_token_types": 3,
        "sliding_window": 8,
        "rope_theta": 5.0,
        "rope_factor": 2.0,
        "rope_scaling": "linear",
    }
    found = ineffective_settings(built(architecture=architecture, **values))
    for key in values:
        sentences = [sentence for sentence in found if sentence.startswith(f"model.{key}=")]
        unread = key in ARCHITECTURES[architecture].unread
        assert len(sentences) == unread, key
        assert not unread or f"because model.architecture={architecture} does not read it" in sentences[0]


@pytest.mark.parametrize("architecture", ROTATING)
@pytest.mark.parametrize(
    ("given", "sentences"),
    [
        (
            {"rope_factor": 2.0},
            ["model.rope_factor=2.0 has no effect because model.rope_scaling=none stretches nothing."],
        ),
        (
            {"rope_scaling": "linear"},
            ["model.rope_scaling=linear has no effect because model.rope_factor=1.0 stretches nothing."],
        ),
        (
            {"rope_scaling": "linear", "rope_factor": 2.0, "rope_high_freq_factor": 8.0, "rope_original_seq_len": 16},
            [
                "model.rope_high_freq_factor=8.0 has no effect because model.rope_scaling=linear does not read it.",
                "model.rope_original_seq_len=16 has no effect because model.rope_scaling=linear does not read it.",
            ],
        ),
        ({"rope_scaling": "llama3", "rope_factor": 2.0, "rope_low_freq_factor": 2.0, "rope_original_seq_len": 16}, []),
    ],
    ids=str,
)
def test_idle_keys_of_rotary_scaling(architecture: str, given: dict[str, Any], sentences: list[str]) -> None:
    assert [
        one for one in ineffective_settings(built(architecture=architecture, **given)) if "rope_" in one
    ] == sentences


def test_a_window_is_read_by_mistral_alone() -> None:
    assert not ineffective_settings(built(architecture="mistral", sliding_window=8))
    assert [name for name in DECODERS if "sliding_window" not in ARCHITECTURES[name].unread] == ["mistral"]


@pytest.mark.parametrize("high", [0.5, 1.0])
def test_wavelengths_that_are_kept_are_shorter_than_those_that_are_stretched(high: float) -> None:
    scaled: dict[str, Any] = {"rope_scaling": "llama3", "rope_factor": 2.0, "rope_high_freq_factor": high}
    assert f"model.rope_high_freq_factor={high} is wrong because it must be above model.rope_low_freq_factor=1.0" in (
        refusal(**scaled)
    )
    built(**{**scaled, "rope_scaling": "linear"})


@pytest.mark.parametrize("architecture", DECODERS)
def test_an_odd_head_cannot_be_rotated(architecture: ArchitectureName) -> None:
    odd = {"architecture": architecture, "hidden_size": 12}  # 4 heads of 3
    if architecture in ROTATING:
        assert "must be even" in refusal(**odd)
    else:
        assert built(**odd).model.head_dim == 3
