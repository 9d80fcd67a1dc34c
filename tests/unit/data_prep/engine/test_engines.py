"""Engines: each one's ids as one array, one thread, and a reason where one cannot be used."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep.engine import engines
from data_prep.engine.engine_definitions import EngineUnavailable, plain_json
from data_prep.engine.engines import NAMES, OPENERS, joined, one_thread, open_engine
from data_prep.tokenizer.loading import load
from data_prep.tokenizer.tokenizers import Tokenizer
from tests import real_data

TEXTS = ["", "one", "", "Two <|endoftext|> three", "😀 日本語 " * 50, ""]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(real_data.gpt2_folder(tmp_path_factory.mktemp("gpt2")))


@pytest.mark.parametrize("name", ["fastokens", "gigatoken", "tiktoken", "hf"])
def test_ids_and_lengths(gpt2: Tokenizer, name: str) -> None:
    engine = open_engine(name, gpt2)
    for texts in (TEXTS, [""], ["", ""], ["a"], TEXTS[::-1]):
        found, expected = engine.encode(texts), gpt2.encode_batch(texts)
        assert found.ids.tolist() == np.concatenate(expected).tolist()
        assert found.ids.dtype.itemsize == 4
        assert found.ids.flags.c_contiguous
        assert found.lengths.tolist() == list(map(len, expected))
        assert found.lengths.dtype == np.int64
    assert engine.encode([]).lengths.tolist() == []
    assert (engine.name, engine.version[0] in "0123456789") == (name, True)


def test_hf_is_the_library_that_defines_the_ids(gpt2: Tokenizer, tokenizer: Tokenizer) -> None:
    assert open_engine("hf", gpt2).name == "hf"
    assert open_engine("hf", tokenizer).name == open_engine("sentencepiece", tokenizer).name == "sentencepiece"
    with pytest.raises(EngineUnavailable, match="cannot load this kind"):
        open_engine("sentencepiece", gpt2)


def test_what_cannot_be_used_says_why(gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="no such engine"):
        open_engine("quick", gpt2)
    bert = load(real_data.bert_folder(tmp_path))
    for name in OPENERS:
        with pytest.raises(EngineUnavailable, match=r"it cannot load this tokenizer|byte-level BPE only"):
            open_engine(name, bert)
        monkeypatch.setitem(sys.modules, "gigatoken.gigatoken_rs" if name == "gigatoken" else name, None)
        with pytest.raises(EngineUnavailable, match="not installed"):
            open_engine(name, gpt2)


def test_special_tokens_are_not_given_to_engines(gpt2: Tokenizer, tokenizer: Tokenizer) -> None:
    assert '"added_tokens":[]' in plain_json(gpt2)
    assert '"added_tokens":[]' in plain_json(tokenizer)


@pytest.mark.parametrize("change", ["normalizer", "pre_tokenizer", "merges"])
def test_tiktoken_takes_only_what_it_can_express(gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    definition = gpt2.definition()  # type: ignore[attr-defined]
    if change == "normalizer":
        definition["normalizer"] = {"type": "NFC"}
    elif change == "pre_tokenizer":
        definition["pre_tokenizer"] = {"type": "Whitespace"}
    else:
        definition["model"]["merges"].reverse()
    monkeypatch.setattr(gpt2, "definition", lambda: definition)
    with pytest.raises(EngineUnavailable, match=r"normalization|single pattern|order of its merges"):
        open_engine("tiktoken", gpt2)


def test_the_process_may_use_all_its_cores_afterwards(gpt2: Tokenizer) -> None:
    before = os.sched_getaffinity(0)
    for name in NAMES:
        if name != "sentencepiece":
            open_engine(name, gpt2)
    with one_thread():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("name", [*OPENERS, "hf"])
def test_an_engine_has_one_thread(gpt2: Tokenizer, name: str) -> None:
    code = f"""
import os, pathlib, resource, time
from data_prep.engine.engines import open_engine
from data_prep.tokenizer.loading import load
engine = open_engine({name!r}, load(pathlib.Path({str(gpt2.folder)!r})))
threads = len(os.listdir("/proc/self/task"))
start, cpu = time.perf_counter(), time.process_time()
texts = [f"Some words {{i}} and more of them, again and again." for i in range(10_000)]
while time.perf_counter() < start + 0.5:
    engine.encode(texts)
assert len(os.listdir("/proc/self/task")) == threads
print((time.process_time() - cpu) / (time.perf_counter() - start))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.2


def test_joining_nothing() -> None:
    assert joined([]).ids.tolist() == joined([]).lengths.tolist() == []
    assert engines.REFERENCE_PACKAGES.keys() == {"hf", "sentencepiece"}
