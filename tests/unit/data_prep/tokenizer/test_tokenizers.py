"""Ids equal in SentencePiece, our interface and Hugging Face's files, and text that comes back as it went in."""

import json
import shutil
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer as HFTokenizer

from data_prep.atomic import replacing
from data_prep.errors import DataError
from data_prep.tokenizer import tokenizers
from data_prep.tokenizer.loading import load
from data_prep.tokenizer.tokenizer_training import sample_texts, train_tokenizer
from data_prep.tokenizer.tokenizers import MODEL_FILE, Tokenizer

TEXTS = [text for _, text in sorted(topics.items())][:40]
SPACE_MARK = "\u2581"  # SentencePiece reads it as a space; the one character that does not come back
STRESS = [
    "",
    " ",
    "  two leading, two trailing  ",
    "a\n\n    b\r\n\tc\t\t",
    "nul \0 and bom \ufeff",
    "no\u00a0break \u200b zero width \u2028 line",
    "é e\u0301 日本語 👩‍👩‍👧‍👦 🏳️‍🌈",
    "1234567890 3.14159",
    "<0x0A> <|eos|> <|bos|><|unk|> </s> <s>",
    "=" * 1_000 + "-" * 999 + " " * 998,
    "a" * 300_000,
    "x y" * 50_000,
    ("word " * 100 + "\n") * 1_000,
]
PIECES = st.sampled_from([" ", "  ", "a", "e", "s", "the", "==", "--", "\n", "\t", "<0x41>", "<|eos|>", "é", "日", "7"])
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SPACE_MARK)) | st.lists(PIECES).map(
    "".join
)


def hf_tokenizer(tokenizer: Tokenizer) -> HFTokenizer:
    found = HFTokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
    found.encode_special_tokens = True  # what transformers calls split_special_tokens
    return found


def assert_equal_everywhere(tokenizer: Tokenizer, text: str) -> None:
    hf = hf_tokenizer(tokenizer)
    [ids] = tokenizer.encode_batch([text])
    assert ids.tolist() == hf.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert hf.decode(ids.tolist()) == text


@pytest.mark.parametrize("text", STRESS, ids=range(len(STRESS)))
def test_stress_texts(any_tokenizer: Tokenizer, text: str) -> None:
    assert_equal_everywhere(any_tokenizer, text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ANY_TEXT)
def test_any_text(any_tokenizer: Tokenizer, text: str) -> None:
    assert_equal_everywhere(any_tokenizer, text)


def test_real_text_is_as_sentencepiece_itself_has_it(any_tokenizer: Tokenizer) -> None:
    model = SentencePieceProcessor(model_file=str(any_tokenizer.folder / "tokenizer.model"))
    hf = hf_tokenizer(any_tokenizer)
    for text, ids in zip(TEXTS, any_tokenizer.encode_batch(TEXTS), strict=True):
        assert ids.tolist() == model.encode(text) == hf.encode(text).ids
        assert len(ids) < 0.7 * len(text)


def test_a_long_text_is_cut_without_a_trace(any_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(TEXTS[:10])
    [whole] = any_tokenizer.encode_batch([text])
    monkeypatch.setattr(tokenizers, "MAX_PART_CHARACTERS", 50)
    [in_parts] = any_tokenizer.encode_batch([text])
    assert in_parts.tolist() == whole.tolist()


def test_special_tokens_are_never_made_from_text(any_tokenizer: Tokenizer) -> None:
    special = {any_tokenizer.bos_id, any_tokenizer.eod_id, any_tokenizer.pad_id}
    [ids] = any_tokenizer.encode_batch(["<|bos|><|eos|><|pad|>"])
    assert len(special) == 3
    assert not special & set(ids.tolist())
    assert any_tokenizer.decode([any_tokenizer.bos_id, *ids.tolist(), any_tokenizer.eod_id]) == "<|bos|><|eos|><|pad|>"


def test_no_texts_make_no_ids(any_tokenizer: Tokenizer) -> None:
    assert any_tokenizer.encode_batch([]) == []
    assert any_tokenizer.decode([]) == ""


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (Path("."), tmp_path):
        with pytest.raises(DataError, match="is the current folder, which cannot be replaced"):
            train_tokenizer(TEXTS, kind="bpe", vocab_size=500, out=out)
    with pytest.raises(DataError, match="cannot be written"), replacing(Path(".")) as temporary:
        temporary.touch()
    assert list(tmp_path.iterdir()) == []


def test_names_become_tokens_where_that_is_asked_for(any_tokenizer: Tokenizer) -> None:
    name, token = next(iter(any_tokenizer.special_tokens.items()))
    text = f"a {name}{name} b{name}"
    before, after = any_tokenizer.encode_batch(["a ", " b"])
    [ids] = any_tokenizer.encode_batch_with_special([text])
    assert ids.tolist() == [*before.tolist(), token, token, *after.tolist(), token]
    assert any_tokenizer.encode_batch_with_special(["", name])[1].tolist() == [token]
    assert any_tokenizer.decode(ids) == "a  b"


@pytest.mark.parametrize("encode", ["encode_batch", "encode_batch_with_special"])
def test_half_a_surrogate_pair_is_named(any_tokenizer: Tokenizer, encode: str) -> None:
    with pytest.raises(DataError, match=r"not Unicode.*begins 'a\\ud800"):
        getattr(any_tokenizer, encode)(["fine", "a\ud800 b"])


def test_a_model_is_found_by_any_of_its_names(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name in ("spiece.model", "some.model"):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(tokenizer.path, folder / name)
        assert load(folder).sha256 == load(folder / name).sha256 == tokenizer.sha256
    shutil.copy(tokenizer.path, folder / "other.model")
    with pytest.raises(DataError, match=r"several tokenizers \(other.model, some.model\)"):
        load(folder)
    assert load(folder / "other.model").kind == "sentencepiece"


def test_special_tokens_that_only_the_json_has_count(tokenizer: Tokenizer, tmp_path: Path) -> None:
    shutil.copy(tokenizer.path, tmp_path)
    hf = HFTokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
    hf.add_special_tokens(["<extra_0>"])
    hf.save(str(tmp_path / "tokenizer.json"))
    found = load(tmp_path)
    assert found.kind == "sentencepiece"
    assert found.vocab_size == tokenizer.vocab_size + 1
    assert found.special_tokens["<extra_0>"] == tokenizer.vocab_size
    assert found.encode_batch_with_special(["<extra_0>"])[0].tolist() == [tokenizer.vocab_size]
    assert found.decode([tokenizer.vocab_size]) == ""
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json cannot be read"):
        load(tmp_path)


def test_tiktokens_ranks_are_told_apart(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE).write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(DataError, match="tiktoken's ranks"):
        load(tmp_path)
    shutil.copy(tokenizer.folder / "tokenizer.json", tmp_path)
    assert load(tmp_path).kind == "hf"
    with pytest.raises(DataError, match="tiktoken's ranks"):
        load(tmp_path / MODEL_FILE)


def test_loading_what_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no tokenizer"):
        load(tmp_path)
    whole = (
        train_tokenizer(TEXTS[:10], kind="bpe", vocab_size=450, out=tmp_path / "whole").folder / MODEL_FILE
    ).read_bytes()
    for content in (b"nonsense", b"", whole[:1000]):
        (tmp_path / MODEL_FILE).write_bytes(content)
        with pytest.raises(DataError, match=r"tokenizer\.model is not a SentencePiece model"):
            load(tmp_path)


def test_a_sample_is_bounded_and_drawn_from_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i} " + "x" * 98 + "\n" * 2}) + "\n" for i in range(10_000)))
    sample = [line for line in sample_texts([path], vocab_size=100) if line]
    assert 50_000 < sum(map(len, sample)) < 150_000
    numbers = [int(line.split()[0]) for line in sample]
    assert sum(number < 5_000 for number in numbers) == pytest.approx(len(numbers) / 2, rel=0.2)
    assert sample == [line for line in sample_texts([path], vocab_size=100) if line]
