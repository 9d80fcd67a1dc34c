"""Batches of denoising objectives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.objectives.denoisers import UL2, Denoiser, Denoising, PrefixLM
from pipeline.objectives.encoder_decoder import EncoderDecoder
from pipeline.objectives.samples import IGNORED, Batch, Windows
from pipeline.objectives.span import SpanCorruption
from tests.unit.pipeline.objectives import chi_square
from tests.unit.pipeline.objectives.vocabularies import END, PAD, vocabulary

SPAN = (Denoiser(rule=SpanCorruption()),)
PREFIX = (Denoiser(rule=PrefixLM()),)
MODES = tuple(replace(denoiser, mode_id=2 + index) for index, denoiser in enumerate(UL2))
FIRST_TEXT = 10  # ids from here to the sentinels are text


def objective(
    denoisers: tuple[Denoiser, ...], seq_len: int = 64, seed: int = 1, **kwargs: int | None
) -> EncoderDecoder:
    denoising = Denoising(denoisers=denoisers, seq_len=seq_len, target_len=kwargs.pop("target_len", None))
    return EncoderDecoder(denoising=denoising, vocabulary=vocabulary(), seed=seed, **kwargs)


def windows(lengths: list[int], width: int, seed: int = 0) -> Windows:
    tokens = np.random.default_rng(seed).integers(FIRST_TEXT, 900, (len(lengths), width)).astype(np.uint16)
    return Windows(tokens=tokens, lengths=np.array(lengths, np.int64))


def text_of(batch: Batch, row: int, sentinels: tuple[int, ...]) -> list[int]:
    """The text that inputs and targets of a sample hold together; modes left out."""
    inputs = batch["input_ids"][row][batch["attention_mask"][row]].tolist()
    targets = batch["labels"][row][batch["labels"][row] != IGNORED].tolist()
    assert inputs.pop() == END
    assert targets.pop() == END
    inputs = [token for token in inputs if token >= FIRST_TEXT]
    if not targets or targets[0] not in sentinels:
        return inputs + targets
    text = []
    for token in inputs:
        if token in sentinels:
            begin = targets.index(token) + 1
            end = next((at for at in range(begin, len(targets)) if targets[at] in sentinels), len(targets))
            text += targets[begin:end]
        else:
            text.append(token)
    return text


@given(
    denoisers=st.sampled_from([SPAN, PREFIX, UL2, MODES]),
    seq_len=st.integers(4, 100),
    target_len=st.none() | st.integers(8, 100),
    seed=st.integers(0, 2**64 - 1),
    data=st.data(),
)
def test_each_sample_holds_its_text(
    denoisers: tuple[Denoiser, ...], seq_len: int, target_len: int | None, seed: int, data: st.DataObject
) -> None:
    built = objective(denoisers, seq_len, seed, target_len=target_len)
    width = built.window_length
    lengths = data.draw(st.lists(st.integers(0, width) | st.just(width), max_size=8))
    raw = windows(lengths, width)
    batch = built.batch(raw, np.arange(len(lengths)) + 5)
    assert {key: array.dtype for key, array in batch.items()} == {
        "input_ids": np.int32,
        "attention_mask": np.bool_,
        "decoder_input_ids": np.int32,
        "labels": np.int32,
    }
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (len(lengths), seq_len)
    assert batch["labels"].shape == batch["decoder_input_ids"].shape
    assert target_len in (None, batch["labels"].shape[1])
    for row, length in enumerate(lengths):
        assert text_of(batch, row, vocabulary().sentinel_ids) == raw.tokens[row, :length].tolist()
    assert (np.diff(batch["attention_mask"].astype(int), axis=1) <= 0).all(), "padding is behind the text"
    assert (batch["input_ids"][~batch["attention_mask"]] == PAD).all()


def test_full_windows_leave_no_padding() -> None:
    built = objective(SPAN, 512)
    batch = built.batch(windows([568] * 3, 568), np.arange(3))
    assert batch["attention_mask"].all()
    assert batch["labels"].shape == (3, 114)
    assert (batch["labels"] != IGNORED).all()
    assert (batch["labels"][:, -1] == END).all()
    assert (batch["input_ids"][:, -1] == END).all()


@pytest.mark.parametrize(("start", "begins"), [(None, PAD), (7, 7)])
def test_the_decoder_sees_what_it_wrote_before(start: int | None, begins: int) -> None:
    built = objective(SPAN, decoder_start_id=start)
    batch = built.batch(windows([0, 1, 30, built.window_length], built.window_length), np.arange(4))
    written = np.where(batch["labels"] == IGNORED, PAD, batch["labels"])
    assert (batch["decoder_input_ids"][:, 0] == begins).all()
    assert (batch["decoder_input_ids"][:, 1:] == written[:, :-1]).all()


@given(seed=st.integers(0, 2**64 - 1), order=st.permutations(range(6)), denoisers=st.sampled_from([SPAN, MODES]))
def test_a_sample_depends_on_its_position_alone(seed: int, order: list[int], denoisers: tuple[Denoiser, ...]) -> None:
    whole = objective(denoisers, seed=seed)
    raw = windows([whole.window_length, 20, 20, 0, 1, whole.window_length], whole.window_length)
    positions = np.array([0, 1, 2**40, 3, 7, 10**12])
    expected = whole.batch(raw, positions)
    again = objective(denoisers, seed=seed)
    for part in np.array_split(np.array(order), 4):
        batch = again.batch(Windows(tokens=raw.tokens[part], lengths=raw.lengths[part]), positions[part])
        for key, array in batch.items():
            assert np.array_equal(array, expected[key][part])


def test_masks_differ_between_positions_and_seeds() -> None:
    first, other = objective(SPAN, 512), objective(SPAN, 512, seed=2)
    raw = windows([568], 568)
    inputs = [
        objective.batch(raw, np.array([position]))["input_ids"].tobytes()
        for objective in (first, other)
        for position in range(50)
    ]
    assert len(set(inputs)) == 100


def test_denoisers_are_drawn_by_weight() -> None:
    built = objective(MODES)
    num_samples = 20_000
    raw = windows([4] * num_samples, 4)
    modes = built.batch(raw, np.arange(num_samples))["input_ids"][:, 0]
    assert chi_square.fits(np.bincount(modes)[2:].tolist(), [denoiser.weight for denoiser in MODES])


def test_a_denoiser_without_weight_is_not_drawn() -> None:
    denoisers = (replace(SPAN[0], weight=0.0, mode_id=2), replace(SPAN[0], mode_id=3), replace(SPAN[0], weight=0.0))
    modes = objective(denoisers).batch(windows([4] * 500, 4), np.arange(500))["input_ids"][:, 0]
    assert (modes == 3).all()


@given(denoisers=st.sampled_from([SPAN, UL2, MODES]), seq_len=st.integers(100, 4000), num_sentinels=st.integers(0, 100))
def test_too_few_sentinels_are_refused_with_a_way_out(
    denoisers: tuple[Denoiser, ...], seq_len: int, num_sentinels: int
) -> None:
    def build(seq_len: int) -> EncoderDecoder:
        denoising = Denoising(denoisers=denoisers, seq_len=seq_len)
        return EncoderDecoder(denoising=denoising, vocabulary=vocabulary(num_sentinels=num_sentinels), seed=0)

    needed = Denoising(denoisers=denoisers, seq_len=seq_len).num_sentinels
    if needed <= num_sentinels:
        build(seq_len)
        return
    with pytest.raises(
        DataError, match=rf"model.seq_len={seq_len} .*noise_density=0.*with {needed} sentinels"
    ) as error:
        build(seq_len)
    if num_sentinels:
        offered = int(str(error.value).split("at most ")[1].split(",")[0].rstrip("."))
        build(offered)
        with pytest.raises(DataError):
            build(offered + 1)


@pytest.mark.parametrize(("field", "name"), [("pad_id", "padding token"), ("eod_id", "end token")])
def test_missing_tokens_are_refused(field: str, name: str) -> None:
    denoising = Denoising(denoisers=SPAN, seq_len=64)
    with pytest.raises(DataError, match=f"has no {name}"):
        EncoderDecoder(denoising=denoising, vocabulary=vocabulary(**{field: None}), seed=0)
