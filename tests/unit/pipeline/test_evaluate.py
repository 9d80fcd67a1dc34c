"""The loss of an exported model on a data set."""

import argparse
import json
import math
from pathlib import Path

import pytest
import torch

from pipeline.convert.hugging_face import load_causal_model
from pipeline.data.token_stream import TokenStream
from pipeline.errors import DataError
from pipeline.evaluate import command, evaluate
from pipeline.shards import find_shards
from tests.small_models import make_data, make_model

SEQ_LEN = 24


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_data(tmp_path_factory.mktemp("data"))
    make_model(folder, folder / "model")
    return folder


@pytest.mark.parametrize("batch_tokens", [1, 100, 4096])
@pytest.mark.parametrize("samples", [None, 3])
def test_the_loss_is_that_of_a_plain_loop(
    work: Path, monkeypatch: pytest.MonkeyPatch, samples: int | None, batch_tokens: int
) -> None:
    monkeypatch.setattr("pipeline.evaluate.BATCH_TOKENS", batch_tokens)
    stream, model = TokenStream(find_shards(str(work / "validation"))), load_causal_model(work / "model")
    windows = samples or (len(stream) - 1) // SEQ_LEN
    losses = []
    for index in range(windows):
        ids = torch.from_numpy(stream.read(index * SEQ_LEN, SEQ_LEN + 1).astype("int64"))
        with torch.no_grad():
            predictions = model(ids[None, :-1]).logits[0].log_softmax(-1)
        losses += [-float(predictions[position, ids[position + 1]]) for position in range(SEQ_LEN)]
    found = evaluate(work / "model", work / "validation", samples=samples)
    assert found.tokens == len(losses) == windows * SEQ_LEN
    assert found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(found.loss))


def test_what_cannot_be_done_is_said(work: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1000000 are needed"):
        evaluate(work / "model", work / "validation", samples=1000000)
    with pytest.raises(DataError, match="is not a data set"):
        evaluate(work / "model", work / "model")
    other = make_data(tmp_path / "other", vocab_size=392)
    with pytest.raises(DataError, match=r"has 392 token ids but the model in .* knows 390"):
        evaluate(work / "model", other / "validation")


def test_command_prints_json_alone(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(model=str(work / "model"), data=str(work / "validation"), samples=2, json=True)
    assert command(args) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 2 * SEQ_LEN
