"""Rotary frequencies against those of transformers and against the words of their definition."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from pipeline.config.schema import ModelConfig
from pipeline.convert.llama_form import hugging_face_config
from pipeline.convert.special_ids import SpecialIds
from pipeline.models.rotary import Rotary, frequencies
from tests.small_models import run_config

CPU = torch.device("cpu")
LLAMA_3_1: Mapping[str, Any] = {
    "rope_theta": 500000.0,
    "rope_scaling": "llama3",
    "rope_factor": 8.0,
    "rope_original_seq_len": 8192,
    "head_dim": 128,
    "seq_len": 131072,
}


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    low = draw(st.floats(0.5, 4.0))
    return run_config(
        head_dim=2 * draw(st.integers(1, 64)),
        rope_theta=draw(st.floats(10.0, 1e6)),
        rope_scaling=draw(st.sampled_from(["none", "linear", "llama3"])),
        rope_factor=draw(st.floats(1.0, 64.0)),
        rope_low_freq_factor=low,
        rope_high_freq_factor=low + draw(st.floats(0.1, 8.0)),
        rope_original_seq_len=draw(st.integers(1, 10000)),
    ).model


@given(models())
def test_frequencies_are_those_of_transformers_to_the_bit(model: ModelConfig) -> None:
    config = LlamaConfig(**hugging_face_config(model, torch.float32, SpecialIds()))
    assert torch.equal(frequencies(model), LlamaRotaryEmbedding(config).inv_freq)


@given(models())
def test_scaling_keeps_or_stretches(model: ModelConfig) -> None:
    plain = frequencies(model.model_copy(update={"rope_scaling": "none"}))
    found = frequencies(model)
    rounding = 1 + 1e-6
    assert (found <= plain * rounding).all()
    assert (found * rounding >= plain / model.rope_factor).all()
    if model.rope_scaling == "llama3":
        wavelengths, length = 2 * math.pi / plain.double(), model.rope_original_seq_len
        kept = wavelengths * rounding < length / model.rope_high_freq_factor
        stretched = wavelengths > length / model.rope_low_freq_factor * rounding
        assert torch.equal(found[kept], plain[kept])
        assert torch.equal(found[stretched], plain[stretched] / model.rope_factor)


def test_all_three_kinds_of_wavelengths_are_in_llama_3_1() -> None:
    model = run_config(**LLAMA_3_1).model
    ratios = frequencies(model.model_copy(update={"rope_scaling": "none"})) / frequencies(model)
    assert int((ratios == 1).sum()) == 29
    assert int((ratios == 8).sum()) == 29
    assert int(((ratios > 1) & (ratios < 8)).sum()) == 6


@pytest.mark.parametrize("shape", [{}, LLAMA_3_1, {"rope_scaling": "linear", "rope_factor": 4.0}], ids=str)
def test_angles_are_those_of_transformers_far_out(shape: dict[str, Any]) -> None:
    """Their cosines, at positions at which an error of frequency would be a turn."""
    model = run_config(**shape).model
    length = 20000
    angles_S11D = Rotary(model)(length, CPU)
    assert angles_S11D.dtype == torch.float32
    assert angles_S11D.shape == (length, 1, 1, model.head_dim)
    rotary = LlamaRotaryEmbedding(LlamaConfig(**hugging_face_config(model, torch.float32, SpecialIds())))
    cos, sin = rotary(torch.zeros(1), torch.arange(length)[None])
    assert torch.equal(angles_S11D[:, 0, 0].cos(), cos[0])
    assert torch.equal(angles_S11D[:, 0, 0].sin(), sin[0])


def test_angles_are_computed_once_for_all_layers() -> None:
    rotary = Rotary(run_config().model)
    assert rotary(24, CPU) is rotary(24, CPU)
    assert rotary(8, CPU).shape[0] == 8
