"""The loss of token frequencies, against a plain loop."""

import math
from collections import Counter
from pathlib import Path

import pytest

from pipeline.data import unigram
from pipeline.data.token_stream import TokenStream
from pipeline.errors import DataError
from pipeline.shards import find_shards
from tests.small_models import VOCAB_SIZE, make_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("chunk", [7, 2**24])
@pytest.mark.parametrize("samples", [None, 2])
def test_loss_of_a_plain_loop(data: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, samples: int | None) -> None:
    monkeypatch.setattr(unigram, "CHUNK_TOKENS", chunk)
    train, held_out = (TokenStream(find_shards(str(data / name))) for name in ("train", "validation"))
    counts = Counter(train.read(0, len(train)).tolist())
    windows = samples or (len(held_out) - 1) // 24
    targets = held_out.read(1, windows * 24).tolist()
    losses = [-math.log((counts[token] + 1) / (len(train) + VOCAB_SIZE)) for token in targets]
    found = unigram.unigram_loss(
        data / "train", data / "validation", vocab_size=VOCAB_SIZE, seq_len=24, samples=samples
    )
    assert found == pytest.approx(sum(losses) / len(losses))


def test_what_cannot_be_done_is_said(data: Path) -> None:
    with pytest.raises(DataError, match="0 windows of 100000 and the token after; 1 are needed"):
        unigram.unigram_loss(data / "train", data / "validation", vocab_size=VOCAB_SIZE, seq_len=100000)
    with pytest.raises(DataError, match="but the vocabulary has 10 ids"):
        unigram.unigram_loss(data / "train", data / "validation", vocab_size=10, seq_len=24)
