"""Documents to sentences that a tokenizer turns into the document's own ids, as far as it can.

White space between two sentences may go with the next one, as byte-level BPE has it (" She"), stay behind, as line ends
do where a tokenizer joins them to a full stop, or lose a space that the tokenizer puts there by itself, as
SentencePiece does. Which of these it is, the tokenizer is asked, for each kind of white space.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.engine.engines import one_thread
from data_prep.text.sentences import SentenceSplitter
from data_prep.tokenizer.special_tokens import SpecialNames, cutter
from data_prep.tokenizer.tokenizers import Tokenizer, refuse_surrogates

# What stands on both sides of the white space that a tokenizer is asked about.
NEIGHBOURS = (
    ("He came.", "She left."),
    ("Did he?", "“No”, she said."),
    ("It was 1990", "3 of them left (all)."),
    ("(See it!)", "(Or not.)"),
    ("Он пришёл.", "Она ушла."),
    ("他来了。", "她走了。"),
)
ASKED = re.compile(r"[ \n\r\t]{0,4}")  # other white space is treated as one of these


class GapRule(NamedTuple):
    """What becomes of white space between two sentences; what is not said goes with the next one.

    Attributes:
        leaves_lines: up to its last line end, it stays with the sentence before.
        drops_space: one space in front of the next sentence is left out.
    """

    leaves_lines: bool
    drops_space: bool

    def cut(self, gap: str) -> tuple[int, int]:
        """How much the sentence before keeps, and where the next one starts."""
        end = gap.rfind("\n") + 1 if self.leaves_lines else 0
        return end, end + (self.drops_space and gap.startswith(" ", end))


RULES = tuple(GapRule(lines, space) for lines in (False, True) for space in (False, True))


class GapRules:
    """The rule for each kind of white space under which the ids of sentences are those of the text, or nearest to it.

    The same for every process: the reference's ids decide.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known = {"": RULES[0]}

    def rule(self, gap: str) -> GapRule:
        """The rule for this white space."""
        kind = gap if ASKED.fullmatch(gap) else "\n\n" if "\n" in gap else "  "
        found = self._known.get(kind)
        if found is None:
            found = self._known[kind] = min(RULES, key=lambda rule: self._misfit(rule, kind))
        return found

    def _misfit(self, rule: GapRule, gap: str) -> tuple[int, int]:
        """Between how many neighbours the ids are not those of the text, and by how many ids in all."""
        end, start = rule.cut(gap)
        texts = [text for a, b in NEIGHBOURS for text in (a + gap + b, a + gap[:end], gap[start:] + b)]
        with one_thread():
            ids = [one.tolist() for one in self._tokenizer.encode_batch(texts)]
        wrong = [(a + b, whole) for whole, a, b in zip(*[iter(ids)] * 3, strict=True) if a + b != whole]
        return len(wrong), sum(abs(len(found) - len(whole)) for found, whole in wrong)


class Sequences(NamedTuple):
    """Texts that become a sequence each, and how many of them each document has, int64, shape (num_documents,)."""

    texts: list[str]
    counts: npt.NDArray[np.int64]

    def of(self, documents: Sequence[int]) -> list[int]:
        """The places in `texts` of what these documents have."""
        stops = np.cumsum(self.counts)
        return [place for one in documents for place in range(int(stops[one] - self.counts[one]), int(stops[one]))]


class SentenceCutter:
    """Cuts documents into sentences of `language`.

    Args:
        keeps_names: no cut falls into the name of a special token, which is to become the token.
    """

    def __init__(self, language: str, tokenizer: Tokenizer, *, keeps_names: bool) -> None:
        self._splitter = SentenceSplitter(language)
        self._rules = GapRules(tokenizer)
        names = tokenizer.special_tokens if keeps_names else ()
        self._names, self._cut_at_names = SpecialNames(names), cutter(names)

    def cut(self, texts: Sequence[str]) -> Sequences:
        """The sentences of each text, in order. Together they are the text, but for spaces that the tokenizer adds.

        Raises:
            DataError: a text is not Unicode.
        """
        try:
            sentences = [self._sentences(text) for text in texts]
        except UnicodeError:
            refuse_surrogates(texts)
            raise
        counts = np.array([len(some) for some in sentences], np.int64)
        return Sequences([one for some in sentences for one in some], counts)

    def _sentences(self, text: str) -> list[str]:
        gaps = self._splitter.gaps(text)
        if gaps and self._names.holds_special([text]):
            gaps = self._outside_names(text, gaps)
        sentences = []
        begin = 0
        for start, stop in gaps:
            end, first = self._rules.rule(text[start:stop]).cut(text[start:stop])
            sentences.append(text[begin : start + end])
            begin = start + first
        return [*sentences, text[begin:]]

    def _outside_names(self, text: str, gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
        parts = self._cut_at_names(text)
        stops = np.cumsum([len(part) for part in parts]).tolist()
        names = [(stops[at] - len(parts[at]), stops[at]) for at in range(1, len(parts), 2)]
        return [gap for gap in gaps if not any(start < gap[1] and gap[0] < stop for start, stop in names)]
