"""Where sentences end: `sentencex` by the rules of a language, in time linear in the text, whatever is in it.

The library finds a text's paragraphs (blank lines end one) and looks at each by itself. Three of its habits are worked
around. Its time grows with the square of a paragraph (2 MB/s at 4 MB, 0.1 MB/s on 0.2 MB of opening quotes), so it is
given windows. It drops some of the line ends between the paragraphs of a text above 10 kB, so it is given one paragraph
at a time. It panics on a white space of several bytes between an abbreviation and a full stop (U+00A0 in "U.S .", say),
so it is given a space instead, which moves nothing.
"""

import importlib.metadata
import re
from collections.abc import Callable, Iterator

from data_prep.errors import DataError

PACKAGE = "sentencex"

# Of these it knows abbreviations and other rules.
WITH_RULES = (
    *("am", "ar", "bg", "bn", "ca", "da", "de", "el", "en", "es", "fi", "fr", "gu", "hi", "hy", "it", "ja", "kk"),
    *("kn", "ml", "mr", "my", "nl", "pa", "pl", "pt", "ru", "sk", "ta", "te", "uk"),
)
# In these it finds sentences by their marks; abbreviations are those of English, or of a language near to it.
BY_MARKS = (
    *("be", "cs", "et", "eu", "fa", "ga", "gl", "he", "hr", "hu", "id", "is", "ka", "ko", "lt", "lv", "mk", "ms"),
    *("nb", "ne", "nn", "no", "ro", "sl", "sq", "sr", "sv", "sw", "tl", "tr", "ur", "vi", "zh"),
)
# These have no marks of sentences: each line is taken for one.
BY_LINES = ("lo", "th")
LANGUAGES = tuple(sorted((*WITH_RULES, *BY_MARKS, *BY_LINES)))

WINDOW = 2**12  # characters that the library sees at once
MARGIN = 2**6  # at the end of a window: it looks 30 bytes ahead

BLANK_LINE = re.compile(r"(\n\r*\n)")
LINE_END = re.compile(r"(\n)")
WIDE_SPACE = re.compile("[\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


def library() -> str:
    """The name and version of the library: another version may find other sentences."""
    return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"


def refuse_unknown(language: str) -> None:
    """Raise DataError if `language` is none of LANGUAGES: the library would take it for English, and say nothing."""
    if language not in LANGUAGES:
        near = re.split(r"[-_]", language.lower())[0]
        first = f"Take {near}, or one of" if near in LANGUAGES else "Give one of"
        raise DataError(
            f"--split-sentences {language} is no language whose sentences can be found. {first} "
            f"{', '.join(LANGUAGES)}. For another one, en goes by the marks that end a sentence in any script."
        )


class SentenceSplitter:
    """Finds sentences of a language, one of LANGUAGES."""

    def __init__(self, language: str) -> None:
        from sentencex import segment

        refuse_unknown(language)
        self._segment: Callable[[str, str], list[str]] = segment
        self._language = language
        self._paragraph_end = LINE_END if language in BY_LINES else BLANK_LINE

    def gaps(self, text: str) -> list[tuple[int, int]]:
        """The white space between each two sentences of `text`: where it starts and stops, equal where there is none.

        The first sentence begins with the text, and the last one ends with it. Each has more than white space, but for
        the single one of a text that has no more.
        """
        found: list[tuple[int, int]] = []
        start = 0
        end: int | None = None  # of the last sentence
        for stop in self._stops(text):
            piece = text[start:stop]
            body = piece.strip()
            if body:
                first = start + len(piece) - len(piece.lstrip())
                if end is not None:
                    found.append((end, first))
                end = first + len(body)
            start = stop
        return found

    def _stops(self, text: str) -> Iterator[int]:
        """Places that cut `text` into sentences and white space, in order; the last is its end."""
        at = 0
        for part in self._paragraph_end.split(WIDE_SPACE.sub(" ", text)):
            for stop in self._stops_in_paragraph(part):
                yield at + stop
            at += len(part)
            yield at

    def _stops_in_paragraph(self, paragraph: str) -> Iterator[int]:
        """Where sentences stop, but for the last.

        Of a window, the stops count that the library has seen MARGIN characters behind. The next one begins at the last
        of them, or, in a sentence that goes on, at a space.
        """
        start = 0
        while len(paragraph) - start > WINDOW:
            window = paragraph[start : start + WINDOW]
            stops = [stop for stop in self._stops_in_window(window) if stop <= WINDOW - MARGIN]
            for stop in stops:
                yield start + stop
            start += stops[-1] if stops else window.rfind(" ", 1, WINDOW - MARGIN) + 1 or WINDOW - MARGIN
        for stop in self._stops_in_window(paragraph[start:]):
            yield start + stop

    def _stops_in_window(self, window: str) -> list[int]:
        """What the library finds; nothing where it fails: a panic of its Rust code is no `Exception` to Python."""
        try:
            pieces = self._segment(self._language, window)
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            return []
        stops = []
        at = 0
        for piece in pieces[:-1]:
            at += len(piece)
            stops.append(at)
        return stops
