"""The choice: fast where the ids are equal, the reference otherwise, and never an engine that differs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from data_prep.engine import engine_choice, engines
from data_prep.engine.engine_choice import Candidate, choose_engine, first_difference
from data_prep.engine.engine_definitions import EngineUnavailable
from data_prep.engine.engines import Encoded, joined
from data_prep.engine.stress_texts import stress_texts
from data_prep.errors import DataError
from data_prep.tokenizer.loading import load
from data_prep.tokenizer.tokenizers import Tokenizer
from tests import real_data


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(real_data.gpt2_folder(tmp_path_factory.mktemp("gpt2")))


def wrong_for(wrong: Callable[[str], bool]) -> Callable[[Tokenizer], engines.Engine]:
    """An engine that gives one id too many for some texts."""

    class Wrong:
        name, version, max_growth_bytes = "fastokens", "9.9", 10**9

        def __init__(self, tokenizer: Tokenizer) -> None:
            self._tokenizer = tokenizer

        def encode(self, texts: Sequence[str]) -> Encoded:
            found = zip(texts, self._tokenizer.encode_batch(texts), strict=True)
            return joined([np.append(ids, 7) if wrong(text) else ids for text, ids in found])

    return Wrong


def use(monkeypatch: pytest.MonkeyPatch, **openers: Callable[[Tokenizer], engines.Engine]) -> None:
    monkeypatch.setattr(engines, "OPENERS", {**engines.OPENERS, **openers})


def test_the_first_that_is_equal_is_taken(gpt2: Tokenizer) -> None:
    found = choose_engine("auto", gpt2, ["one", "<|endoftext|>"])
    assert (found.name, found.candidates) == ("fastokens", (Candidate(name="fastokens", refused=None),))
    assert found.num_documents == 2
    assert found.num_stress_texts == len(stress_texts(gpt2)) > 100


@pytest.mark.parametrize("where", ["stress", "documents"])
def test_one_that_differs_is_passed_over_or_refused(
    gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    documents = ["fine", "some words before the odd QXZ, and some after it"]
    use(monkeypatch, fastokens=wrong_for(lambda text: "QXZ" in text if where == "documents" else "\u2581" in text))
    found = choose_engine("auto", gpt2, documents)
    assert found.name == "gigatoken"
    assert "its ids differ from the reference's for " in str(found.candidates[0].refused)
    excerpt = "some after it" if where == "documents" else "."
    with pytest.raises(DataError, match=rf"--engine fastokens cannot be used with .*differ.*{excerpt}.*or hf"):
        choose_engine("fastokens", gpt2, documents)


def test_a_difference_that_shows_only_the_second_time_is_found(
    gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def again(text: str) -> bool:
        known = text in seen
        seen.add(text)
        return known

    use(monkeypatch, fastokens=wrong_for(again))
    assert choose_engine("auto", gpt2, []).name == "gigatoken"


@pytest.mark.parametrize("error", [ValueError, type("PanicException", (BaseException,), {})])
def test_one_that_fails_on_a_text_is_passed_over(
    gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fails(text: str) -> bool:
        if "odd" in text:
            raise error("index out of range")
        return False

    use(monkeypatch, fastokens=wrong_for(fails))
    found = choose_engine("auto", gpt2, ["odd"])
    assert found.name == "gigatoken"
    assert "index out of range" in str(found.candidates[0].refused)


def test_the_reference_is_always_there(gpt2: Tokenizer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: Tokenizer) -> engines.Engine:
        raise EngineUnavailable("it is not installed")

    use(monkeypatch, fastokens=absent, gigatoken=absent, tiktoken=absent)
    for one, name in ((gpt2, "hf"), (tokenizer, "sentencepiece")):
        found = choose_engine("auto", one, ["text"])
        assert (found.name, found.num_stress_texts, found.num_documents) == (name, 0, 0)
        assert {candidate.refused for candidate in found.candidates} == {"it is not installed", None}
        assert choose_engine("hf", one, ["text"]).name == name
    with pytest.raises(DataError, match=r"--engine fastokens cannot be used with .*: it is not installed"):
        choose_engine("fastokens", gpt2, [])
    with pytest.raises(DataError, match=r"--engine quick is not known. Choose auto or one of fastokens, "):
        choose_engine("quick", gpt2, [])


def test_only_as_much_is_compared_as_there_is_time_for(gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "COMPARED_CHARACTERS", 100)
    assert choose_engine("auto", gpt2, ["x" * 60, "", "y" * 10**8, "z"]).num_documents == 3


def test_the_stress_set_finds_another_unicode(tmp_path: Path) -> None:
    """As gigatoken 0.10 has one, which counts 13 unassigned places from U+11DE0 on as digits."""
    gpt2 = load(real_data.gpt2_folder(tmp_path))
    assert any("\U00011de0" in text for text in stress_texts(gpt2))
    codes = {ord(character) for text in stress_texts(gpt2) for character in text}
    assert len({code >> 8 for code in codes}) > 500
    assert not any(0xD800 <= code < 0xE000 for code in codes)
    assert sum(len(text.encode()) for text in stress_texts(gpt2)) < 700_000
    assert stress_texts(gpt2) == stress_texts(gpt2)


def test_the_first_text_that_differs() -> None:
    one = joined([np.array([1, 2]), np.array([], dtype=np.int64), np.array([3])])
    assert first_difference(one, one) is None
    assert first_difference(one, joined([np.array([1, 2]), np.array([3]), np.array([], dtype=np.int64)])) == 1
    assert first_difference(one, joined([np.array([1, 2]), np.array([], dtype=np.int64), np.array([4])])) == 2
