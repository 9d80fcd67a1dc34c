"""Real tokenizers on real text: an engine that is accepted gives the ids of the reference library, in 23 languages."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor

from data_prep.engine.encoder import Encoder
from data_prep.engine.engine_choice import choose_engine
from data_prep.engine.engines import OPENERS
from data_prep.engine.stress_texts import stress_texts
from data_prep.errors import DataError
from data_prep.tokenizer.loading import load
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer
from tests import real_data

TEXTS = [text[:8_000] for text in real_data.texts().values()]


def trained(kind: Literal["unigram", "bpe"]) -> Callable[[Path], Path]:
    texts = [text[2_000:] for text in TEXTS]
    return lambda out: train_tokenizer(texts, kind=kind, vocab_size=4_000, out=out).folder


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "gpt2": real_data.gpt2_folder,
    "llama": lambda _: real_data.llama_model(),
    "hf_unigram": real_data.unigram_folder,
    "bert": real_data.bert_folder,
    "own_unigram": trained("unigram"),
    "own_bpe": trained("bpe"),
}

# What `auto` takes, and all engines that are equal: none of the fast ones reads WordPiece or NFKC.
CHOSEN = {
    "gpt2": "fastokens",
    "llama": "gigatoken",
    "hf_unigram": "hf",
    "bert": "hf",
    "own_unigram": "sentencepiece",
    "own_bpe": "gigatoken",
}
EQUAL = {
    "gpt2": {"fastokens", "gigatoken", "tiktoken"},
    "llama": {"fastokens", "gigatoken"},
    "own_bpe": {"fastokens", "gigatoken"},
}


@pytest.fixture(scope="module", params=FOLDERS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Tokenizer]:
    out = tmp_path_factory.mktemp("real") / request.param
    return request.param, load(FOLDERS[request.param](out))


def test_auto_takes_the_fastest_that_is_equal(case: tuple[str, Tokenizer]) -> None:
    name, tokenizer = case
    assert choose_engine("auto", tokenizer, TEXTS).name == CHOSEN[name]


def test_every_accepted_engine_has_the_ids_of_the_reference(case: tuple[str, Tokenizer]) -> None:
    name, tokenizer = case
    texts = [*TEXTS, *(line for text in TEXTS for line in text.split("\n")[::20])]
    expected = tokenizer.encode_batch(texts)
    accepted = set()
    for engine in OPENERS:
        try:
            choose_engine(engine, tokenizer, [])
        except DataError:
            continue
        accepted.add(engine)
        encoded = Encoder(tokenizer, engine, "split").encode(texts)
        assert np.array_equal(encoded.ids, np.concatenate(expected)), engine
        assert encoded.lengths.tolist() == list(map(len, expected)), engine
    assert accepted == EQUAL.get(name, set())


def test_the_reference_is_the_plain_library(case: tuple[str, Tokenizer]) -> None:
    _, tokenizer = case
    texts = [*TEXTS, *stress_texts(tokenizer)]
    if tokenizer.kind == "sentencepiece":
        model = SentencePieceProcessor(model_file=str(tokenizer.path))
        assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == model.encode(texts)
        return
    from tokenizers import Tokenizer as HFTokenizer

    plain = HFTokenizer.from_file(str(tokenizer.path))
    plain.no_truncation()
    plain.no_padding()
    for names_are_text, encode in ((True, tokenizer.encode_batch), (False, tokenizer.encode_batch_with_special)):
        plain.encode_special_tokens = names_are_text
        expected = [one.ids for one in plain.encode_batch(texts, add_special_tokens=False)]
        assert [ids.tolist() for ids in encode(texts)] == expected


@pytest.mark.parametrize("case", [name for name in FOLDERS if name != "llama"], indirect=True)  # it has no such files
def test_ids_are_those_of_transformers(case: tuple[str, Tokenizer]) -> None:
    from transformers import AutoTokenizer

    _, tokenizer = case
    theirs = AutoTokenizer.from_pretrained(tokenizer.folder)
    texts = ["one", "a  b", *(text[3_000:3_500] for text in TEXTS), *tokenizer.special_tokens]
    ours = [ids.tolist() for ids in tokenizer.encode_batch_with_special(texts)]
    assert ours == theirs(texts, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    assert (tokenizer.bos_id, tokenizer.eod_id, tokenizer.pad_id) == (
        theirs.bos_token_id,
        theirs.eos_token_id,
        theirs.pad_token_id,
    )


def test_a_long_text_is_cut_without_a_trace(case: tuple[str, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    _, tokenizer = case
    text = " ".join(TEXTS)
    [whole] = tokenizer.encode_batch([text])
    monkeypatch.setattr("data_prep.tokenizer.tokenizers.MAX_PART_CHARACTERS", 2_000)
    monkeypatch.setattr("data_prep.tokenizer.json_tokenizer.CHARACTERS_PER_CALL", 2_000)
    [in_parts] = tokenizer.encode_batch([text])
    assert in_parts.tolist() == whole.tolist()
