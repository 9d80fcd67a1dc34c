"""Which tokens of a text a model is to guess, and what it sees in their place.

Source: Devlin et al., "BERT", 2019, section 3.1 and appendix A.1, and `create_masked_lm_predictions` published with it.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.objectives.vocabulary import Vocabulary
from pipeline.objectives.word_runs import Places, choose_words, find_words

Unit = Literal["token", "whole_word", "ngram", "span"]

SPAN_STOP_RATE = 0.2  # of the geometric distribution of SpanBERT's spans
LONGEST_SPAN = 10  # in words; longer ones are not drawn, which makes the mean 3.8


@dataclass(frozen=True, kw_only=True)
class Masking:
    """The rule.

    Attributes:
        mask_rate: the share of a sample's tokens, without special ones, that are to be guessed, above 0.
        mask_token_share: how many of these are replaced by the mask token.
        random_token_share: how many by any token that is not special; the rest stay as they are.
        masking: what is masked at once: a token, a word, 1 to `max_ngram` words of which n are 1/n as likely as one
            (ALBERT), or 1 to 10 words, of geometric distribution (SpanBERT).
    """

    mask_rate: float = 0.15
    mask_token_share: float = 0.8
    random_token_share: float = 0.1
    masking: Unit = "token"
    max_ngram: int = 3

    def __post_init__(self) -> None:
        assert 0 < self.mask_rate <= 1
        assert min(self.mask_token_share, self.random_token_share) >= 0
        assert self.mask_token_share + self.random_token_share <= 1
        assert self.masking in get_args(Unit)
        assert self.max_ngram >= 1

    def num_targets(self, num_maskable: int) -> int:
        """How many of this many tokens are masked: whole words at most as many, single tokens exactly."""
        return max(1, round(self.mask_rate * num_maskable)) if num_maskable else 0

    def run_shares(self) -> npt.NDArray[np.float64]:
        """How likely a run has 1, 2, 3 and so on words; float64, shape (longest run,).

        Source: Lan et al., "ALBERT", 2020, section 3.1; Joshi et al., "SpanBERT", 2020, section 3.1.
        """
        shares = np.ones(1)
        if self.masking == "ngram":
            shares = 1 / np.arange(1.0, self.max_ngram + 1)
        elif self.masking == "span":
            shares = (1 - SPAN_STOP_RATE) ** np.arange(float(LONGEST_SPAN))
        return shares / shares.sum()


def choose_targets(
    masking: Masking,
    *,
    is_maskable: npt.NDArray[np.bool_],
    begins_word: npt.NDArray[np.bool_] | None,
    generator: np.random.Generator,
) -> Places:
    """The places of one sample's tokens that are to be guessed; ascending.

    Args:
        is_maskable: shape (num_tokens,).
        begins_word: of the same shape; not needed for single tokens.
    """
    places = np.flatnonzero(is_maskable)
    if not (budget := masking.num_targets(len(places))):
        return places
    if masking.masking == "token":
        # The smallest of as many numbers as there are tokens: a draw without replacement.
        chosen = np.argpartition(generator.random(len(places)), budget - 1)[:budget]
        chosen.sort()
        return places[chosen]
    assert begins_word is not None
    words = find_words(places, begins_word[places], longest=budget)
    order = np.argsort(generator.random(len(words.lengths)))
    if len(shares := masking.run_shares()) > 1:
        run_lengths = 1 + np.searchsorted(np.cumsum(shares)[:-1], generator.random(len(order)), side="right")
    else:
        run_lengths = np.ones_like(order)
    chosen_words = choose_words(words, budget=budget, order=order.tolist(), run_lengths=run_lengths.tolist())
    return places[np.repeat(chosen_words, words.lengths)]


class Replacement:
    """What the model sees instead of the tokens that it is to guess, drawn for each token, in whole words as well."""

    def __init__(self, masking: Masking, vocabulary: Vocabulary) -> None:
        assert vocabulary.mask_id is not None
        self._mask_id = vocabulary.mask_id
        self._mask_below = masking.mask_token_share
        self._random_below = masking.mask_token_share + masking.random_token_share
        self._ordinary_ids = np.flatnonzero(~vocabulary.is_special)
        assert self._ordinary_ids.size

    def of(self, ids: npt.NDArray[Any], generator: np.random.Generator) -> npt.NDArray[Any]:
        """Ids in the place of `ids`, of the same shape (num_targets,)."""
        decisions, which = generator.random((2, len(ids)))
        random_ids = self._ordinary_ids[(which * len(self._ordinary_ids)).astype(np.intp)]
        other_ids = np.where(decisions < self._random_below, random_ids, ids)
        return np.where(decisions < self._mask_below, self._mask_id, other_ids)
