"""Prefix-LM, and what a mixture of denoisers fits in."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.objectives.denoisers import UL2, Denoiser, Denoising, PrefixLM, raw_length
from pipeline.objectives.span import SpanCorruption
from tests.unit.pipeline.objectives import chi_square

NO_SENTINELS = np.empty(0, np.int32)
suffixes = st.none() | st.floats(0.01, 0.99)


@given(suffix=suffixes, width=st.integers(0, 100), rows=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_prefix_and_rest_are_the_text(suffix: float | None, width: int, rows: int, seed: int) -> None:
    rule = PrefixLM(suffix=suffix)
    tokens = np.arange(rows * width, dtype=np.int32).reshape(rows, width)
    sides = rule.apply(tokens, np.random.default_rng(seed).random((rows, 3)), NO_SENTINELS)
    longest = rule.lengths(width)
    for row in range(rows):
        inputs = sides.inputs[row, : sides.input_lengths[row]].tolist()
        targets = sides.targets[row, : sides.target_lengths[row]].tolist()
        assert inputs + targets == tokens[row].tolist()
        assert len(targets) >= min(width, 1)
        assert len(inputs) >= min(width - 1, 1)
        assert len(inputs) < longest[0]
        assert len(targets) < longest[1]


def test_each_cut_is_equally_likely() -> None:
    num_texts = 10_000
    tokens = np.zeros((num_texts, 12), np.int32)
    sides = PrefixLM().apply(tokens, np.random.default_rng(5).random((num_texts, 1)), NO_SENTINELS)
    counts = Counter(sides.input_lengths.tolist())
    assert chi_square.fits([counts[cut] for cut in range(1, 12)], [1] * 11)
    assert counts.total() == num_texts
    mean = PrefixLM().mean_lengths(12)
    assert abs(sides.input_lengths.mean() + 1 - mean[0]) < 0.15
    assert abs(sides.target_lengths.mean() + 1 - mean[1]) < 0.15


@pytest.mark.parametrize(("width", "cut"), [(0, 0), (1, 0), (2, 1), (3, 2), (10, 8), (100, 75)])
def test_a_fixed_share_is_written(width: int, cut: int) -> None:
    sides = PrefixLM(suffix=0.25).apply(np.zeros((1, width), np.int32), np.zeros((1, 1)), NO_SENTINELS)
    assert sides.input_lengths.tolist() == [cut]


@given(suffix=suffixes, inputs=st.integers(3, 3000), targets=st.none() | st.integers(3, 3000))
def test_prefix_raw_length_is_the_most_that_fits(suffix: float | None, inputs: int, targets: int | None) -> None:
    rule = PrefixLM(suffix=suffix)
    raw = raw_length(rule, inputs, targets)
    assert rule.fits(raw, inputs, targets)
    assert not rule.fits(raw + 1, inputs, targets)


def test_t5_fills_both_sides() -> None:
    denoising = Denoising(denoisers=(Denoiser(rule=SpanCorruption()),), seq_len=512)
    assert (denoising.window_length, denoising.target_len, denoising.num_sentinels) == (568, 114, 28)
    assert denoising.filling == (1.0, 1.0)


def test_ul2_is_the_papers() -> None:
    rules = [denoiser.rule for denoiser in UL2]
    corruptions = [(rule.mean_span_length, rule.noise_density) for rule in rules if isinstance(rule, SpanCorruption)]
    assert corruptions == [(3, 0.15), (8, 0.15), (3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5)]
    assert rules[6:] == [PrefixLM(suffix=0.25)]
    assert Denoising(denoisers=UL2, seq_len=512).shares == pytest.approx([0.8 / 6] * 6 + [0.2])


@given(
    seq_len=st.integers(8, 2000),
    target_len=st.none() | st.integers(8, 2000),
    mode_id=st.none() | st.integers(2, 9),
    num_denoisers=st.integers(1, 7),
)
def test_windows_are_as_long_as_every_denoiser_takes(
    seq_len: int, target_len: int | None, mode_id: int | None, num_denoisers: int
) -> None:
    denoisers = [replace(denoiser, mode_id=mode_id) for denoiser in UL2[-num_denoisers:]]
    denoising = Denoising(denoisers=denoisers, seq_len=seq_len, target_len=target_len)
    room = seq_len - (mode_id is not None)
    raw = denoising.window_length
    assert all(denoiser.rule.fits(raw, room, target_len) for denoiser in denoisers)
    assert not all(denoiser.rule.fits(raw + 1, room, target_len) for denoiser in denoisers)
    lengths = [denoiser.rule.lengths(raw) for denoiser in denoisers]
    assert max(inputs for inputs, _ in lengths) <= room
    if target_len is None:
        assert max(targets for _, targets in lengths) == denoising.target_len
    else:
        assert max(targets for _, targets in lengths) <= denoising.target_len == target_len
    assert all(0 < share <= 1 for share in denoising.filling)


@pytest.mark.parametrize(("seq_len", "target_len"), [(0, None), (1, None), (2, None), (512, 1), (512, 2)])
def test_no_room_for_text_is_refused(seq_len: int, target_len: int | None) -> None:
    with pytest.raises(DataError, match=rf"model.seq_len={seq_len} with objective.target_len={target_len or 'null'}"):
        Denoising(denoisers=UL2, seq_len=seq_len, target_len=target_len)
