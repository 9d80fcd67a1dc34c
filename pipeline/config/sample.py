"""How many tokens of the stream one sample of a run reads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.schema import RunConfig

if TYPE_CHECKING:
    from pipeline.objectives.denoisers import Denoising


@dataclass(frozen=True, kw_only=True)
class SampleWindow:
    """A sample's part of the token stream.

    Attributes:
        length: tokens that a sample reads.
        stride: tokens from one sample to the next.
        formula: how the length follows from the config, for messages.
    """

    length: int
    stride: int
    formula: str


def sample_window(config: RunConfig) -> SampleWindow:
    """What one sample of the run's objective reads."""
    objective, seq_len = config.objective, config.model.seq_len
    if objective.name == "causal":
        # The last token of a window is the first of the next, so that each is predicted once.
        return SampleWindow(length=seq_len + 1, stride=seq_len, formula=f"model.seq_len={seq_len} and the token after")
    if objective.name == "masked":
        added = 2 if objective.pairs == "none" else 3
        length = seq_len - added
        return SampleWindow(
            length=length, stride=length, formula=f"model.seq_len={seq_len} less {added} special tokens"
        )
    length = denoising(config).window_length
    formula = f"what model.seq_len={seq_len} holds after objective.denoiser={objective.denoiser}"
    return SampleWindow(length=length, stride=length, formula=formula)


def denoising(config: RunConfig) -> "Denoising":
    """The denoisers of a run with `objective.name=span`, and what they fill.

    Raises:
        DataError: `model.seq_len` has no room for any text.
    """
    from pipeline.objectives.denoisers import UL2, Denoiser, Denoising, PrefixLM
    from pipeline.objectives.span import SpanCorruption

    objective = config.objective
    span = SpanCorruption(noise_density=objective.noise_density, mean_span_length=objective.mean_span_length)
    denoisers = {"span": (Denoiser(rule=span),), "prefix": (Denoiser(rule=PrefixLM()),), "ul2": UL2}
    return Denoising(
        denoisers=denoisers[objective.denoiser], seq_len=config.model.seq_len, target_len=objective.target_len
    )
