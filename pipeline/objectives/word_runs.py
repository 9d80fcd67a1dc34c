"""Which whole words of a text are masked: one by one, or in runs of several.

Dims: N tokens of one sample that may be masked, W words of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.intp]


class Words(NamedTuple):
    """The words of one sample.

    Attributes:
        lengths: tokens of each, shape (W,); they sum up to N.
        text_ends: for each word, the first word after its text, shape (W,). Texts end at special tokens.
    """

    lengths: Places
    text_ends: Places


def find_words(places: Places, begins_word: npt.NDArray[np.bool_], *, longest: int) -> Words:
    """The words of one sample. A word of more than `longest` tokens is taken apart into words of one token.

    Such a word could not be masked as a whole, and is mostly none: a text in a script without spaces, or encoded data.

    Args:
        places: of the tokens that may be masked, ascending, shape (N,). The first of each text begins a word.
        begins_word: shape (N,).
    """
    firsts = np.flatnonzero(begins_word)
    lengths = np.diff(firsts, append=len(places))
    if lengths.max(initial=0) > longest:
        firsts = np.flatnonzero(begins_word | np.repeat(lengths > longest, lengths))
        lengths = np.diff(firsts, append=len(places))
    # Special tokens before a word move it away from its number among those that may be masked.
    texts = places[firsts] - firsts
    return Words(lengths, np.searchsorted(texts, texts, side="right"))


def choose_words(
    words: Words, *, budget: int, order: Sequence[int], run_lengths: Sequence[int]
) -> npt.NDArray[np.bool_]:
    """Which words are masked, bool, shape (W,): runs from the words in `order` on, `budget` tokens of them at most.

    A run ends with its text, and before a word that has more tokens than are left: so one that does not fit is left
    out, and later ones are tried. A run may go over words that are masked already, for the lengths to keep their
    distribution; it does not begin with one.

    Args:
        order: of the words, as runs begin with them, shape (W,).
        run_lengths: words in each of these runs, shape (W,).

    Source: the words of google-research/bert's `create_masked_lm_predictions`, which are runs of one, and the spans of
    Joshi et al., "SpanBERT", 2020, section 3.1, with the overlaps of its code.
    """
    lengths, text_ends = words.lengths.tolist(), words.text_ends.tolist()
    chosen = np.zeros(len(lengths), np.bool_)
    masked = chosen.data  # whose items cost less than those of an array
    for first, run_length in zip(order, run_lengths, strict=True):
        if masked[first]:
            continue
        for word in range(first, min(first + run_length, text_ends[first])):
            if masked[word]:
                continue
            if lengths[word] > budget:
                break
            masked[word] = True
            budget -= lengths[word]
        if not budget:
            break
    return chosen
