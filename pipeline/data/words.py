"""Which tokens make one word together, for whatever kind of tokenizer, as two facts about each token alone.

A word is a run of letters, digits and marks of scripts that put spaces between words. All else stands alone:
punctuation, symbols, and scripts without such spaces. An apostrophe counts as a letter, for the sake of `don't`; a
closing quote therefore goes with its word. Whether two characters belong to one word follows from these two alone, so
that the words of a text do not depend on where its tokens are cut. White space begins a word, be it in a token with
letters or, if it is a single space, in one of its own.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

# First and last code point of neighbouring blocks. Hangul is not among them: Korean has spaces.
WITHOUT_SPACES = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x2E80, 0x312F),  # Han radicals, kana, Bopomofo
    (0x3190, 0x4DBF),  # Han, Katakana
    (0x4E00, 0xA4CF),  # Han, Yi
    (0xA980, 0xA9FF),  # Javanese, Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # Han
    (0xFF65, 0xFF9F),  # Katakana
    (0x11700, 0x1174F),  # Ahom
    (0x16FE0, 0x18DFF),  # Han, Tangut, Khitan
    (0x1AFF0, 0x1B2FF),  # kana, Nushu
    (0x20000, 0x3FFFF),  # Han
)
INSIDE_WORDS = frozenset("'\u2019\u00ad\u200c\u200d")  # apostrophes; what Persian and Indic words hold unseen

FIRST_OF = {2: range(0xC2, 0xE0), 3: range(0xE0, 0xF0), 4: range(0xF0, 0xF5)}  # of a character of so many bytes
LENGTHS = {first: length for length, firsts in FIRST_OF.items() for first in firsts} | dict.fromkeys(range(0x80), 1)

Flags = npt.NDArray[np.bool_]


def word_joins(content: Sequence[bytes | None], continues: Flags | None) -> tuple[Flags, Flags]:
    """Which tokens join left and which join right, both bool, shape (vocab_size,).

    Token t goes on with the word of token t - 1 if and only if it joins left and that one joins right; otherwise it
    begins a word. The marks of a tokenizer decide where it has them, as `##` of WordPiece; else the bytes do. What
    begins inside a character always joins left, what ends inside one always right. A token that only holds the rest of
    a character cannot know its script, and joins right as well.

    Args:
        content, continues: as in `data_prep.tokenizer.token_text.TokenText`. No token joins any other where no token
            is marked and none carries white space: that tokenizer does not tell its words.
    """
    if continues is not None:
        return continues, np.array([piece is not None for piece in content], dtype=bool)
    left = np.array([piece is not None and _joins_left(piece) for piece in content], dtype=bool)
    right = np.array([piece is not None and _joins_right(piece) for piece in content], dtype=bool)
    return left, right


def _joins_left(piece: bytes) -> bool:
    if _is_inner(piece[:1]):
        return True
    length = LENGTHS.get(piece[0], 0) if piece else 0
    is_cut = len(piece) < length and all(_is_inner(piece[i : i + 1]) for i in range(1, len(piece)))
    return _mostly_in_words(piece) if is_cut else _in_words(piece[:length])


def _joins_right(piece: bytes) -> bool:
    if piece == b" ":  # SentencePiece cuts a space off before digits and rare words, to which it belongs
        return True
    start = len(piece) - 1
    while start >= 0 and _is_inner(piece[start : start + 1]):
        start -= 1
    if start < 0:
        return bool(piece)
    length = LENGTHS.get(piece[start], 0)
    return len(piece) - start < length or _in_words(piece[start:])


def _is_inner(byte: bytes) -> bool:
    """Whether a byte is one of a character of UTF-8, but not its first."""
    return b"\x80" <= byte <= b"\xbf"


@cache
def _in_words(encoded: bytes) -> bool:
    """Whether one character, in UTF-8, is part of words; False for what is no character."""
    try:
        character = encoded.decode()
    except UnicodeDecodeError:
        return False
    return len(character) == 1 and _is_in_words(character)


def _is_in_words(character: str) -> bool:
    if unicodedata.category(character)[0] not in "LMN":
        return character in INSIDE_WORDS
    code = ord(character)
    return not any(first <= code <= last for first, last in WITHOUT_SPACES)


@cache
def _mostly_in_words(start: bytes) -> bool:
    """Whether that holds for most characters that begin with the bytes `start`."""
    length = LENGTHS[start[0]]
    code = start[0] & (0x7F >> length)
    for byte in start[1:]:
        code = code << 6 | byte & 0x3F
    span = 1 << 6 * (length - len(start))
    step = max(span // 4096, 1)  # a look at all of 2^18 takes 0.1 s
    characters = map(chr, range(code * span, min((code + 1) * span, 0x110000), step))
    in_words = [_is_in_words(one) for one in characters if unicodedata.category(one) not in ("Cn", "Cs")]
    return 2 * sum(in_words) > len(in_words)
