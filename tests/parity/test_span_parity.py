"""Batches of span corruption, as transformers' T5 takes them."""

import numpy as np
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from pipeline.objectives.denoisers import UL2, Denoiser, Denoising, PrefixLM
from pipeline.objectives.encoder_decoder import EncoderDecoder
from pipeline.objectives.samples import Batch, Windows
from pipeline.objectives.span import SpanCorruption
from tests.unit.pipeline.objectives.vocabularies import END, PAD, vocabulary

# Relative, of one loss of about 7 in float32: measured 2e-7; an encoder that reads padding gives 1.5e-4 and more.
TOLERANCE = 1e-5

MIXTURES = {"span": (Denoiser(rule=SpanCorruption()),), "prefix": (Denoiser(rule=PrefixLM()),), "ul2": UL2}


@pytest.fixture(scope="module")
def model() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"vocab_size": 1000, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(
        T5Config(**sizes, pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD, dropout_rate=0.0)
    ).eval()


def batch_of(mixture: str, lengths: list[int | None]) -> Batch:
    """A batch of texts; None is a full window."""
    denoising = Denoising(denoisers=MIXTURES[mixture], seq_len=96)
    objective = EncoderDecoder(denoising=denoising, vocabulary=vocabulary(), seed=1)
    width = objective.window_length
    tokens = np.random.default_rng(0).integers(10, 900, (len(lengths), width), dtype=np.uint16)
    filled = [width if length is None else length for length in lengths]
    return objective.batch(Windows(tokens=tokens, lengths=np.array(filled)), np.arange(len(lengths)))


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """For the model, which takes int32 for all but labels."""
    given = {key: torch.from_numpy(array) for key, array in batch.items()}
    return given | {"labels": given["labels"].long()}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_the_decoder_reads_what_the_model_makes_of_the_labels(mixture: str, model: T5ForConditionalGeneration) -> None:
    batch = tensors(batch_of(mixture, [None, 40, 1, 0, None]))
    shifted = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    assert torch.equal(shifted, batch["decoder_input_ids"].to(shifted.dtype))


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("length", [0, 1, 2, 30, None])
def test_padding_changes_no_loss(mixture: str, length: int | None, model: T5ForConditionalGeneration) -> None:
    padded = tensors(batch_of(mixture, [length]))
    num_inputs, num_labels = int(padded["attention_mask"].sum()), int((padded["labels"] >= 0).sum())
    with torch.no_grad():
        loss = model(**padded).loss
        bare = model(input_ids=padded["input_ids"][:, :num_inputs], labels=padded["labels"][:, :num_labels]).loss
    assert loss.isfinite()
    assert abs(loss - bare) <= TOLERANCE * bare
