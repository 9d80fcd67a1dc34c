# ruff: noqa: RUF001  characters that look alike are what this is about
"""Texts on which engines have been seen to differ, or might: made by code, the same ones each time.

Small, as the reference takes a second for 2 MB: each text is there for one reason.
"""

import functools
import itertools
import random
import unicodedata
from collections.abc import Iterator

from data_prep.tokenizer.tokenizers import Tokenizer

CODE_POINTS_PER_TEXT = 512
SPARSE = 16  # new digits and letters get blocks that begin at a multiple of 16
PLANES = 0x20000  # the two planes with nearly all letters; the others are sampled at multiples of FAR
FAR = 0x800
WORDS_PER_SCRIPT = 12
MAX_NAMES = 64

# First and last letter of scripts that differ in case, direction, joining, combining marks, spaces between words.
SCRIPTS = (
    "az AZ ßÿ Āſ ƀɏ Ḁỿ αω АЯ а֏ Աֆ את ءي پۓ ܐܬ ހޥ ߊߪ अह কহ ਅਹ અહ ଅହ அஹ అహ ಅಹ അഹ අෆ กฮ ກຮ ཀཨ ကအ აჰ ᄀᄒ 가힣 አፗ ᎠᏴ ᐁᙶ "
    "ᚁᚚ ᚠᛪ កអ ᠠᡂ ᬅᬳ ꦄꦲ ぁん ァヴ ㄅㄩ 一龥 𠀀𠀿 𐌰𐍊 𐤀𐤕 𒀀𒀿 𓀀𓀿 𞤀𞤡"
)
FAMILY = "\u200d".join("👩👩👧👦")
SHRUG = "🤷🏻\u200d♀\ufe0f"

EDGES = (
    *("", " ", "\n", "\t", "\0", "a", " a", "a ", "  two leading, two trailing  ", "a\n\n    b\r\n\tc\t\t"),
    *("\r\n\r\n \r\r\n", "x\n\n\n\n y\n \n z\n  \n", "nul \0 in\0side\0\0"),
    "".join(map(chr, range(1, 32))) + "\x7f\x80\x85\x9f",
    "bom \ufeff no\u00a0break \u200b zero\u200dwidth \u2028 line \u2029 par \u3000wide \u202eltr \u2060 \u00ad",
    "é e\u0301 E\u0301\u0302\u0323 Å \u212b ﬁ ² ½ Ⅷ ａｂ ǆ İ ı ẞ ŉ \u1e9b\u0323 \u0958 \uac01 \u1100\u1161\u11a8",
    "\u0301start e\u0301\u0301\u0301\u0301 \u093f\u094d",
    f"{FAMILY}🏳\ufe0f\u200d🌈👍🏽🇩🇪🇫🇷☺\ufe0f☺\ufe0e1\ufe0f\u20e3#\ufe0f\u20e3 {SHRUG}x{SHRUG}",
    "日本語のテキスト、「かな」交じり。中文，没有空格。ภาษาไทยไม่มีช่องว่าง",
    "don't I'm we'LL they'Ve IT'S x's 's 't'm ''re 'RE ’s l’eau 'ſ",
    "1234567890 3.14159 1,000,000 0x1F 12ab34 ٣٤٥ १२३ 𝟏𝟐𝟑 ¼¾ 1 22 333 4444 55555",
    "<0x0A> <0x00><0xFF> \u2581 a\u2581b \u2581\u2581\u2581 Ġ Ċ Ġthe âĢĻ ## ##ing [x] <|x|> \\n \ufffd \ufffe \uffff",
    "{\"a\": [1, 2.5e-10], 'b': null}\n\tif (x != y && z[i]++) { return --w; } // /* */ #!/bin/sh @x %d ~~~ ^^ ``` \n",
    "https://user@example.org:80/a-b_c/d.html?q=1&r=%20#top me@example.com 2024-01-31T12:00Z C++ .NET snake_case ABCd",
)


def stress_texts(tokenizer: Tokenizer) -> list[str]:
    """The texts for one tokenizer, some with the names of its special tokens, which are plain text here."""
    names = [*itertools.islice(tokenizer.special_tokens, MAX_NAMES), *tokenizer.matched_tokens[:MAX_NAMES]]
    named = [f"{name} a{name}b {name}{name}\n{name[:-1]} {name.upper()}x{name[1:]} .{name}" for name in names]
    return [*_fixed_texts(), *named]


@functools.cache
def _fixed_texts() -> tuple[str, ...]:
    draw = random.Random(0)
    return (*EDGES, *_runs(draw), *_scripts(draw), *_code_points())


def _runs(draw: random.Random) -> Iterator[str]:
    """Long texts without a place to cut, and long runs of what counts as space."""
    yield "a" * 300_000
    yield "".join(draw.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=20_000)) + "=="
    yield "x" + " " * 20_000 + "y" + "\n" * 2_000 + "\t" * 999 + "z" + "\r\n" * 500 + " \n" * 500
    yield "=" * 2_000 + "-" * 1_999 + "." * 777 + "!?" * 300 + "\u00a0" * 300 + "\u3000" * 300
    yield "1" * 3_001 + " " + "9876543210" * 200
    yield "x y" * 5_000
    yield (
        "é" * 1_000 + "e\u0301" * 1_000 + "\u0301" * 500 + FAMILY * 200 + "中" * 2_000 + "\0" * 1_000 + "\u2581" * 300
    )
    yield "".join(draw.choices("aeiou tnshrdl,.\n'", k=10_000))


def _scripts(draw: random.Random) -> Iterator[str]:
    """Words of each script, with the punctuation, digits and spaces of others between them."""
    between = (" ", " ", " ", "", ", ", ". ", "\n", "-", " 12 ", "'", "\u3002", " (", "\u200c", "\u0301", "a", "A")
    for script in SCRIPTS.split():
        letters = [
            chr(code) for i in range(0, len(script), 2) for code in range(ord(script[i]), ord(script[i + 1]) + 1)
        ]
        yield "".join(
            "".join(draw.choices(letters, k=draw.randint(1, 9))) + draw.choice(between) for _ in range(WORDS_PER_SCRIPT)
        )


def _code_points() -> Iterator[str]:
    """Each place where Unicode's categories change, and the beginnings of blocks that a newer Unicode may have filled.

    Libraries bring different versions of Unicode: gigatoken 0.10 knows 13 digits from U+11DE0 on that others do not.
    """
    categories = [unicodedata.category(chr(code)) for code in range(PLANES)]
    codes = [
        code
        for code in range(128, PLANES)
        if code % SPARSE == 0 or categories[code] != categories[code - 1] or categories[code] != categories[code - 2]
    ]
    codes += range(PLANES, 0x110000, FAR)
    characters = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    for start in range(0, len(characters), CODE_POINTS_PER_TEXT):
        yield "".join(f" {one}{one}a{one}1" for one in characters[start : start + CODE_POINTS_PER_TEXT])
