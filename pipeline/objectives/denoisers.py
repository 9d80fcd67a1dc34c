"""What an encoder-decoder model learns to undo: one rule, or a mixture of them."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.objectives.span import Ids, Sides, SpanCorruption

SHORTEST = 2  # tokens of a text of which one is given and one is asked for


class Rule(Protocol):
    """How texts become what the encoder reads and what the decoder writes."""

    def fits(self, raw: int, seq_len: int, target_len: int | None) -> bool:
        """Whether what becomes of `raw` tokens is never longer than encoder and decoder; None takes any targets."""

    def lengths(self, raw: int) -> tuple[int, int]:
        """The longest inputs and targets made of `raw` tokens, each with its end."""

    def mean_lengths(self, raw: int) -> tuple[float, float]:
        """Inputs and targets made of `raw` tokens on average."""

    def num_sentinels(self, raw: int) -> int:
        """How many sentinels `raw` tokens need."""

    def apply(self, tokens: Ids, random: npt.NDArray[np.float64], sentinels: Ids) -> Sides:
        """Inputs and targets of texts of one length; see `SpanCorruption.apply`."""


@dataclass(frozen=True, kw_only=True)
class PrefixLM:
    """The encoder reads the beginning of a text, the decoder writes the rest.

    Attributes:
        suffix: the share of the text that is written; None draws the cut, each place in the text equally likely.

    Source: Raffel et al., 2020, and `prefix_lm` of t5.data.preprocessors, which draws the cut.
    """

    suffix: float | None = None

    def fits(self, raw: int, seq_len: int, target_len: int | None) -> bool:
        """See `Rule`."""
        inputs, targets = self.lengths(raw)
        return inputs <= seq_len and (target_len is None or targets <= target_len)

    def lengths(self, raw: int) -> tuple[int, int]:
        """See `Rule`."""
        shortest, longest = self._prefixes(raw)
        return longest + 1, raw - shortest + 1

    def mean_lengths(self, raw: int) -> tuple[float, float]:
        """See `Rule`."""
        mean = sum(self._prefixes(raw)) / 2
        return mean + 1, raw - mean + 1

    def num_sentinels(self, raw: int) -> int:  # noqa: ARG002 - it needs none for any number
        """See `Rule`."""
        return 0

    def apply(self, tokens: Ids, random: npt.NDArray[np.float64], sentinels: Ids) -> Sides:  # noqa: ARG002
        """See `Rule`; one number of each row of `random` is used."""
        width = tokens.shape[1]
        shortest, longest = self._prefixes(width)
        cuts = shortest + (random[:, 0] * (longest - shortest + 1)).astype(np.int64)
        # What lies after the end of a row may be anything: here the last token.
        after = np.minimum(cuts[:, None] + np.arange(width - shortest), width - 1)
        return Sides(tokens[:, :longest], cuts, np.take_along_axis(tokens, after, axis=1), width - cuts)

    def _prefixes(self, raw: int) -> tuple[int, int]:
        """The shortest and the longest prefix: a text of one token is written, one of two or more is cut in two."""
        longest = max(raw - 1, 0)
        if self.suffix is None:
            return min(longest, 1), longest
        fixed = min(max(raw - round(raw * self.suffix), min(longest, 1)), longest)
        return fixed, fixed


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """One part of a mixture.

    Attributes:
        weight: how often it is drawn, relative to the others.
        mode_id: a token at the beginning of its inputs, which tells the model what to do; None puts none there.
    """

    rule: Rule
    weight: float = 1.0
    mode_id: int | None = None


UL2 = (
    *(
        Denoiser(rule=SpanCorruption(noise_density=density, mean_span_length=mean), weight=0.8 / 6)
        for mean, density in ((3, 0.15), (8, 0.15), (3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5))
    ),
    Denoiser(rule=PrefixLM(suffix=0.25), weight=0.2),
)
"""Two R-, four X- and one S-denoiser, without mode tokens: `replace` gives them some.

Source: Tay et al., "UL2: Unifying language learning paradigms", 2022, table 1, with a fifth of S-denoising.
"""


def raw_length(rule: Rule, seq_len: int, target_len: int | None = None) -> int:
    """The most tokens of which what becomes fits in encoder and decoder; 0 if not even one does."""
    too_long = 1
    while rule.fits(too_long, seq_len, target_len):
        too_long *= 2
    return bisect.bisect(range(1, too_long), False, key=lambda raw: not rule.fits(raw, seq_len, target_len))


class Denoising:
    """What a mixture of denoisers needs and fills, whatever the tokenizer.

    Windows of `window_length` tokens are as long as every denoiser can take. T5's alone fills encoder and decoder with
    them, so that nothing is padding.

    Args:
        seq_len: positions of the encoder.
        target_len: positions of the decoder; None takes what the longest targets need.

    Raises:
        DataError: there is no room for any text.
    """

    def __init__(self, *, denoisers: Sequence[Denoiser], seq_len: int, target_len: int | None = None) -> None:
        self.denoisers, self.seq_len = tuple(denoisers), seq_len
        self.window_length = min(
            raw_length(denoiser.rule, seq_len - (denoiser.mode_id is not None), target_len) for denoiser in denoisers
        )
        if self.window_length < SHORTEST:
            raise DataError(
                f"model.seq_len={seq_len} with objective.target_len={target_len or 'null'} is too short for {SHORTEST} "
                "tokens with their sentinel and their end. Set longer ones."
            )
        longest = max(denoiser.rule.lengths(self.window_length)[1] for denoiser in denoisers)
        self.target_len = longest if target_len is None else target_len
        weights = np.array([denoiser.weight for denoiser in denoisers])
        self.shares = weights / weights.sum()

    @property
    def num_sentinels(self) -> int:
        """The sentinels that a full window needs."""
        return max(denoiser.rule.num_sentinels(self.window_length) for denoiser in self.denoisers)

    @property
    def filling(self) -> tuple[float, float]:
        """The shares of encoder and decoder positions that full windows fill, on average."""
        lengths = np.array([denoiser.rule.mean_lengths(self.window_length) for denoiser in self.denoisers])
        lengths[:, 0] += [denoiser.mode_id is not None for denoiser in self.denoisers]
        inputs, targets = (self.shares @ lengths).tolist()
        return inputs / self.seq_len, targets / self.target_len
