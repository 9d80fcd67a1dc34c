# ruff: noqa: RUF001  marks of other scripts are what is tested
"""Sentences found: the right ones in several languages, nothing lost of any text, in linear time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.text.sentences import LANGUAGES, WINDOW, SentenceSplitter, library

SENTENCES = {
    "en": ["Dr. Smith came at 5 p.m. on Jan. 3.", "It cost $3.50, i.e. too much!", "“Did it?” she asked.", "Yes."],
    "de": ["Das ist z. B. ein Satz.", "Am 3. Mai kam Dr. Müller.", "Warum?"],
    "fr": ["C'est vrai !", "Vraiment ?", "Oui, etc."],
    "ru": ["Он пришёл в 5 ч. утра.", "Она ушла.", "Почему?"],
    "el": ["Ήρθε.", "Έφυγε!"],
    "hi": ["यह एक वाक्य है।", "क्या सच है?", "हाँ।"],
    "ar": ["هذه جملة.", "هل هذا صحيح؟", "نعم."],
    "ur": ["یہ ایک جملہ ہے۔", "وہ آیا۔"],
    "am": ["ይህ ዓረፍተ ነገር ነው።", "ሌላ ነው።"],
    "hy": ["Նա եկավ։", "Նա գնաց։"],
    "my": ["ဒါက ဝါကျပါ။", "နောက်တစ်ခုပါ။"],
    "ko": ["그가 왔다.", "그녀는 갔다!"],
    "zh": ["他来了。", "她走了！", "真的吗？", "“你好。”", "他说。"],
    "ja": ["これは文です。", "次の文です！", "本当ですか？"],
}


def cut(language: str, text: str) -> list[str]:
    """The sentences, without the white space between them."""
    gaps = SentenceSplitter(language).gaps(text)
    stops, starts = [start for start, _ in gaps] + [len(text)], [0] + [stop for _, stop in gaps]
    return [text[start:stop] for start, stop in zip(starts, stops, strict=True)]


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("white_space", [" ", "  ", "\n", "\n\n", " \r\n\r\n\t", "\u3000"])
def test_languages(language: str, white_space: str) -> None:
    assert cut(language, white_space.join(SENTENCES[language])) == SENTENCES[language]


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_text_without_spaces(language: str) -> None:
    assert cut(language, "".join(SENTENCES[language])) == SENTENCES[language]


def test_a_script_without_marks_has_a_sentence_a_line() -> None:
    assert cut("th", "นี่คือประโยค นี่คืออีกประโยค\nขอบคุณครับ") == ["นี่คือประโยค นี่คืออีกประโยค", "ขอบคุณครับ"]


def test_blank_lines_end_a_sentence_and_line_ends_do_not() -> None:
    assert cut("en", "A title\n\nA sentence on\ntwo lines.") == ["A title", "A sentence on\ntwo lines."]


def test_every_language_is_one_of_the_library() -> None:
    for language in LANGUAGES:
        assert len(cut(language, "One!\n\nTwo!")) == 2
    assert library().startswith("sentencex 1.")


@pytest.mark.parametrize(
    ("language", "first"), [("pt-BR", "Take pt, or one of am"), ("xx", "Give one of am"), ("", "")]
)
def test_an_unknown_language_is_refused(language: str, first: str) -> None:
    with pytest.raises(DataError, match=rf"--split-sentences {language} is no language .* {first}.*, zh"):
        SentenceSplitter(language)


parts = st.sampled_from(
    [
        *".!?…。！？।؟\"'“”«»()[]「」 \t\r\n\v\f\0\u0085\u00a0\u2028\u3000Aa1é字😀",
        "Mr.",
        "U.S",
        "e.g.",
        "\n\n",
        "1.",
        "(a)",
    ]
)


@given(st.lists(parts, max_size=60).map("".join) | st.text(max_size=60), st.sampled_from(LANGUAGES))
def test_sentences_are_the_text_but_for_white_space_between(text: str, language: str) -> None:
    gaps = SentenceSplitter(language).gaps(text)
    begin = 0
    for start, stop in gaps:
        assert begin < start <= stop < len(text)
        assert not text[start:stop].strip()
        assert text[begin:start].strip()
        assert not text[start - 1].isspace()
        assert not text[stop].isspace()
        begin = stop
    assert not gaps or text[begin:].strip()


def test_a_paragraph_longer_than_a_window() -> None:
    sentences = [f"Sentence {number} says {'so ' * (number % 40)}indeed." for number in range(400)]
    text = " ".join(sentences)
    assert len(text) > 5 * WINDOW
    assert cut("en", text) == sentences
    long = f"It {'goes on and ' * WINDOW}ends."
    assert cut("en", f"A first one. {long} A last one.") == ["A first one.", long, "A last one."]


@pytest.mark.parametrize("piece", ["x", "word ", "字", "“a ", "`` a. B ", "Mr. ", "\n", "1. a\n", "他来了。"])
def test_time_is_linear(piece: str) -> None:
    def seconds(characters: int) -> float:
        text = (piece * characters)[:characters]
        start = time.process_time()
        SentenceSplitter("en").gaps(text)
        return time.process_time() - start

    few = min(seconds(50_000) for _ in range(3))
    assert seconds(400_000) < 20 * max(few, 0.005)  # 8 times as long; 64 times if it were quadratic


@pytest.mark.parametrize("space", ["\u00a0", "\u2028", "\u3000", "\u0085"])
def test_what_the_library_panics_at(space: str) -> None:
    """Its release 1.0.32 cuts in the midst of a character that is a white space of several bytes."""
    text = f"He lives in the U.S{space}. She left. They came."
    splitter = SentenceSplitter("en")
    assert len(splitter.gaps(text)) == 2
    assert splitter._stops_in_window(text) == []
