"""The encoder of a worker process: the reference's ids under each policy, in bounded memory."""

import subprocess
import sys

import numpy as np
import pytest

from data_prep.engine import encoder as module
from data_prep.engine.encoder import Encoder
from data_prep.engine.engines import Encoded
from data_prep.errors import DataError
from data_prep.tokenizer.loading import load
from data_prep.tokenizer.tokenizers import Tokenizer
from tests import real_data

PLAIN = ["", "one", "two three", "😀"]
NAMED = ["a", "x<|endoftext|>y", "", "<|endoftext|>", "b"]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(real_data.gpt2_folder(tmp_path_factory.mktemp("gpt2")))


def split(encoded: Encoded) -> list[list[int]]:
    assert encoded.ids.ndim == 1
    assert encoded.lengths.dtype == np.int64
    return [ids.tolist() for ids in np.split(encoded.ids, np.cumsum(encoded.lengths))[:-1]]


@pytest.mark.parametrize("engine", ["fastokens", "gigatoken", "tiktoken", "hf"])
def test_names_are_text_or_tokens_or_refused(gpt2: Tokenizer, engine: str) -> None:
    as_text, as_tokens, strict = (Encoder(gpt2, engine, policy) for policy in ("split", "encode", "error"))
    for texts in (PLAIN, NAMED, NAMED[1:2], []):
        assert split(as_text.encode(texts)) == [ids.tolist() for ids in gpt2.encode_batch(texts)]
        assert split(as_tokens.encode(texts)) == [ids.tolist() for ids in gpt2.encode_batch_with_special(texts)]
    assert split(as_tokens.encode(NAMED))[3] == [50256]
    assert split(strict.encode(PLAIN)) == [ids.tolist() for ids in gpt2.encode_batch(PLAIN)]
    with pytest.raises(DataError, match=r"begins 'x<\|endoftext.*spells the special token '<\|endoftext\|>'"):
        strict.encode(NAMED)


@pytest.mark.parametrize("engine", ["fastokens", "gigatoken", "tiktoken", "hf"])
def test_half_a_surrogate_pair_is_named(gpt2: Tokenizer, engine: str) -> None:
    with pytest.raises(DataError, match="not Unicode"):
        Encoder(gpt2, engine, "split").encode(["a", "b\ud800"])


def test_an_engine_that_is_gone_is_named(gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)
    with pytest.raises(DataError, match="engine fastokens cannot be used in this process: it is not installed"):
        Encoder(gpt2, "fastokens", "split")


@pytest.mark.parametrize("policy", ["split", "encode"])
def test_a_recheck_finds_a_wrong_id(gpt2: Tokenizer, policy: str) -> None:
    encoder = Encoder(gpt2, "fastokens", policy)
    texts = [*NAMED, *PLAIN]
    encoded = encoder.encode(texts)
    encoder.recheck(texts, encoded, range(len(texts)))
    encoder.recheck(texts, encoded, [])
    wrong = encoded._replace(ids=encoded.ids.copy())
    wrong.ids[1] += 1
    encoder.recheck(texts, wrong, [0, 2, 3])
    with pytest.raises(DataError, match=r"other ids than the reference.*'x<\|endof.*--engine hf in a new folder"):
        encoder.recheck(texts, wrong, [0, 1])


def test_the_engine_is_made_anew_when_the_process_has_grown(gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    resident, trims, opened = [1_000], [], []
    monkeypatch.setattr(module, "_resident_bytes", lambda: resident[0])
    monkeypatch.setattr(module, "_give_back_memory", lambda: trims.append(resident[0]))
    real = module.open_engine
    monkeypatch.setattr(module, "open_engine", lambda *args: opened.append(1) or real(*args))
    encoder = Encoder(gpt2, "fastokens", "split", max_growth_bytes=100)
    for grown, number in ((1_100, 1), (1_101, 2), (1_150, 2), (1_202, 3)):
        resident[0] = grown
        assert split(encoder.encode(["one"])) == [[505]]
        assert len(opened) == number
    assert trims.count(1_150) == 0


def test_memory_stays_bounded_on_words_that_are_all_new(gpt2: Tokenizer) -> None:
    """Gigatoken's cache alone would take 500 MB and more here."""
    code = f"""
import os, pathlib
from data_prep.engine.encoder import Encoder
from data_prep.tokenizer.loading import load
encoder = Encoder(load(pathlib.Path({str(gpt2.folder)!r})), "gigatoken", "split")
letters = bytes(97 + i % 26 for i in range(256))
for _ in range(40):
    random = os.urandom(1_000_000).translate(letters).decode()
    encoder.encode([" ".join(random[i : i + 9] for i in range(0, len(random), 9))])
status = pathlib.Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0])  # in kB; unlike ru_maxrss, without the process that forked this one
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 450_000
