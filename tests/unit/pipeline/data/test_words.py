"""Words found from token ids, against words found in the text by scripts and categories of Unicode."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from data_prep.tokenizer.loading import load
from data_prep.tokenizer.token_text import TokenText
from data_prep.tokenizer.tokenizers import Tokenizer
from pipeline.data.words import word_joins
from tests import real_data

TEXTS = {language: text[3_000:9_000].strip() for language, text in real_data.texts().items()}

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Yi}\p{Bopomofo}\u30fc"
IN_WORDS = regex.compile(rf"[[\p{{L}}\p{{M}}\p{{N}}'\u2019\u00ad\u200c\u200d]--[{UNSPACED}]]", regex.V1)

# BERT's: white space ends a word, each mark of punctuation and each Chinese character is one.
BERT_ALONE = r"[\p{P}$+<=>^`|~\p{Han}]"
BERT_WORD = regex.compile(rf"{BERT_ALONE}|[[^\s]--{BERT_ALONE}]+", regex.V1)
UNKNOWN = "\0"

# Of all boundaries of a text, those beside a character of which a token holds but a part: its script is a guess.
# Measured: 1.5 % of French in GPT-2, whose apostrophe begins with two bytes that dashes share; 0.6 % of Persian.
MAX_WRONG_GUESSES = 0.02

FOLDERS: dict[str, Callable[[Path], Path]] = {
    "gpt2": real_data.gpt2_folder,  # byte-level BPE
    "llama": lambda _: real_data.llama_model(),  # SentencePiece with byte fallback
}


@pytest.fixture(scope="module", params=FOLDERS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(FOLDERS[request.param](tmp_path_factory.mktemp("words")))


def joins(text: TokenText) -> Callable[[int, int], bool]:
    """Whether a token goes on with the word of the one before."""
    left, right = word_joins(text.content, text.continues)
    return lambda before, token: bool(left[token] and right[before])


def is_cut(piece: bytes) -> bool:
    """Whether a token holds nothing but the rest of a character."""
    return all(0x80 <= byte < 0xC0 for byte in piece)


def begins_whole(piece: bytes) -> bool:
    """Whether the first character of a token is in it to the end."""
    return any(piece[:length].decode(errors="ignore") for length in (1, 2, 3, 4))


@pytest.mark.parametrize("language", TEXTS)
def test_words_from_ids_are_the_words_of_the_text(tokenizer: Tokenizer, language: str) -> None:
    text = tokenizer.token_text()
    goes_on = joins(text)
    ids = tokenizer.encode_batch([TEXTS[language]])[0].tolist()
    pieces = [text.content[token] for token in ids]
    whole = b"".join(pieces)
    assert whole.decode().lstrip() == TEXTS[language]
    end, wrong = 0, 0
    for before, token, piece, following in zip(ids, ids[1:], pieces, pieces[1:], strict=False):
        end += len(piece)
        found = goes_on(before, token)
        if 0x80 <= whole[end] < 0xC0:
            assert found  # inside a character
            continue
        character = whole[end:].decode()[0]
        expected = bool(IN_WORDS.match(whole[:end].decode()[-1]) or piece == b" ") and bool(IN_WORDS.match(character))
        if begins_whole(following) and not is_cut(piece):
            assert found == expected, (piece, following)
        else:
            wrong += found != expected
    assert wrong <= MAX_WRONG_GUESSES * len(ids)


def test_words_of_wordpiece_are_berts(tmp_path: Path) -> None:
    tokenizer = load(real_data.bert_folder(tmp_path))
    text = tokenizer.token_text()
    goes_on = joins(text)
    for language in ("en", "de", "fr", "ru", "zh_Hans", "pl"):
        ids = tokenizer.encode_batch([TEXTS[language]])[0].tolist()
        pieces = [UNKNOWN if text.content[token] is None else text.content[token].decode() for token in ids]
        words = pieces[:1]
        for before, token, piece in zip(ids, ids[1:], pieces[1:], strict=False):
            if goes_on(before, token):
                words[-1] += piece
            else:
                words.append(piece)
        plain = regex.sub(r"\p{Mn}", "", unicodedata.normalize("NFD", TEXTS[language].lower()))
        assert words == [
            UNKNOWN if found == UNKNOWN else word for word, found in zip(BERT_WORD.findall(plain), words, strict=True)
        ]


@pytest.mark.parametrize(
    ("piece", "left", "right"),
    [
        ("word", True, True),
        (" word", False, True),
        (" ", False, True),  # belongs to the word after it
        ("  ", False, False),
        ("word ", True, False),
        ("\n", False, False),
        ("'t", True, True),
        (" '", False, True),
        ("_", False, False),
        ("2025", True, True),
        ("(x", False, True),
        ("\u0301", True, True),  # an accent
        ("한국", True, True),
        ("日本", False, False),
        ("スー", False, False),
        ("ภาษา", False, False),
        ("👩", False, False),
        ("", False, False),
        (None, False, False),
        (b"\xc3", True, True),  # of é, and all that is like it
        (b"\xe6\x97", False, True),  # of 日
        (b"\xa5", True, True),  # the end of whatever it is
        (b"a\xe6", True, True),
        (b"\xff", False, False),
        (b"\xe6a", False, True),
    ],
)
def test_what_joins(piece: str | bytes | None, left: bool, right: bool) -> None:
    content = piece.encode() if isinstance(piece, str) else piece
    assert [flags.tolist() for flags in word_joins([content], None)] == [[left], [right]]


def test_marks_decide_where_there_are_some() -> None:
    marks = np.array([False, True, False, False])
    left, right = word_joins([b"a", b"b", None, b" c"], marks)
    assert left.tolist() == marks.tolist()
    assert right.tolist() == [True, True, False, True]


@given(st.lists(st.binary(max_size=8)))
def test_any_bytes_are_read(content: list[bytes]) -> None:
    left, right = word_joins(content, None)
    assert left.shape == right.shape == (len(content),)
    assert (left.dtype, right.dtype) == (bool, bool)
