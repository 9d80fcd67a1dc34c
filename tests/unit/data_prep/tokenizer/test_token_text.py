"""The bytes of each token: put together they are the text again, whatever the kind of tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as HFTokenizer

from data_prep.tokenizer.loading import load
from data_prep.tokenizer.special_roles import Kind
from data_prep.tokenizer.tokenizer_training import train_tokenizer
from data_prep.tokenizer.tokenizers import Tokenizer
from tests.unit.data_prep.conftest import TEXTS

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")) | st.lists(
    st.sampled_from([" ", "  ", "\n", "the", "<0x41>", "<|eos|>", "é", "日本", "हि", "👩‍👩‍👧", "7", "qq"])
).map("".join)

Trained = Callable[[Kind], Tokenizer]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    found: dict[Kind, Tokenizer] = {}

    def train(kind: Kind) -> Tokenizer:
        if kind not in found:
            out = tmp_path_factory.mktemp("text") / kind
            found[kind] = train_tokenizer(TEXTS, kind=kind, vocab_size=700, out=out, objectives=["all"])
        return found[kind]

    return train


def saved(tokenizer: HFTokenizer, folder: Path) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    tokenizer.add_tokens([AddedToken("qq", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return load(folder)


def spelled(tokenizer: Tokenizer, text: str) -> bytes:
    """The text of the ids of a text."""
    content = tokenizer.token_text().content
    pieces = [content[token] for token in tokenizer.encode_batch([text])[0]]
    return b"".join(piece for piece in pieces if piece is not None)


@pytest.mark.parametrize("kind", ["unigram", "bpe", "byte_bpe"])
@settings(max_examples=60, deadline=None)
@given(text=ANY_TEXT)
def test_the_tokens_of_a_text_spell_it(trained: Trained, kind: Kind, text: str) -> None:
    assert spelled(trained(kind), text) == text.encode()


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_both_files_of_a_sentencepiece_model_spell_alike(trained: Trained, kind: Kind) -> None:
    tokenizer = trained(kind)
    ours, beside = tokenizer.token_text(), load(tokenizer.folder / "tokenizer.json").token_text()
    assert ours.content == beside.content
    assert ours.continues is beside.continues is None
    assert [token for token, piece in enumerate(ours.content) if piece is None] == list(range(110))
    assert sorted(piece for piece in ours.content if piece and len(piece) == 1 and piece[0] > 127) == [
        bytes([byte]) for byte in range(128, 256)
    ]


def test_wordpiece_says_by_a_mark_what_goes_on(trained: Trained) -> None:
    tokenizer = trained("wordpiece")
    text = tokenizer.token_text()
    assert text.continues is not None
    ids = tokenizer.encode_batch(["Unlikely exceptions, don't"])[0]
    words = []
    for token in ids:
        if text.continues[token]:
            words[-1] += text.content[token]
        else:
            words.append(text.content[token])
    assert words == [b"Unlikely", b"exceptions", b",", b"don", b"'", b"t"]
    special = list(tokenizer.special_tokens.values())
    assert not text.continues[special].any()
    assert all(text.content[token] is None for token in special)


def test_a_token_that_is_spelled_like_a_mark_is_text_where_there_are_none(trained: Trained) -> None:
    tokenizer = trained("byte_bpe")
    assert spelled(tokenizer, "## <0x41> Ġ") == "## <0x41> Ġ".encode()
    assert tokenizer.token_text().continues is None


@pytest.mark.parametrize("replacement", ["\u2581", "_"])
def test_metaspace(tmp_path: Path, replacement: str) -> None:
    tokenizer = HFTokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=replacement)
    tokenizer.decoder = decoders.Metaspace(replacement=replacement)
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=["<u>"], unk_token="<u>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS[:5], trainer)
    found = saved(tokenizer, tmp_path)
    assert spelled(found, "the words of  a text") == b" the words of  a text"
    assert spelled(found, "the qq") == b" the qq"
    assert found.token_text().continues is None
    assert found.token_text().content[found.special_tokens["<s>"]] is None


def test_llamas_way_of_writing_a_normalizer_and_a_decoder(tmp_path: Path) -> None:
    vocab = {"<unk>": 0, "<0xE6>": 1, "<0x97>": 2, "<0xA5>": 3, "\u2581": 4, "a": 5, "\u2581a": 6}
    merges = [("\u2581", "a")]
    tokenizer = HFTokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    found = saved(tokenizer, tmp_path)
    assert spelled(found, "a a日") == " a a日".encode()
    assert found.token_text().content[:7] == [b"<unk>", b"\xe6", b"\x97", b"\xa5", b" ", b"a", b" a"]


def test_the_end_of_a_word_is_a_space(tmp_path: Path) -> None:
    tokenizer = HFTokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(vocab_size=300, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS[:5], trainer)
    found = saved(tokenizer, tmp_path)
    assert spelled(found, "unlikely words") == b"unlikely words "
    assert found.token_text().continues is None


VOCAB = {"un": 0, "likely": 1}


@pytest.mark.parametrize("model", [models.BPE(VOCAB, [], unk_token="un"), models.WordLevel(VOCAB, unk_token="un")])
def test_tokens_without_spaces_or_marks_go_on_with_nothing(tmp_path: Path, model: Any) -> None:
    tokenizer = HFTokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    text = saved(tokenizer, tmp_path).token_text()
    assert text.content == [b"un", b"likely", None, b"qq"]
    assert text.continues is not None
    assert not text.continues.any()


def test_a_model_that_sees_the_spaces_itself_carries_them(tmp_path: Path) -> None:
    tokenizer = HFTokenizer(models.BPE({"a": 0, " ": 1, " a": 2}, [(" ", "a")]))
    text = saved(tokenizer, tmp_path).token_text()
    assert (text.content[:3], text.continues) == ([b"a", b" ", b" a"], None)


def test_ids_that_no_token_has_stand_for_nothing(tmp_path: Path) -> None:
    tokenizer = saved(HFTokenizer(models.WordPiece({"a": 0, "##a": 5}, unk_token="a")), tmp_path)
    text = tokenizer.token_text()
    assert text.content == [b"a", None, None, b"qq", None, b"a"]  # the library numbers added tokens by their count
    assert np.flatnonzero(text.continues).tolist() == [5]
