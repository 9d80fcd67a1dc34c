"""The weights of the sources of a run, and the phases in which they change."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from pipeline.config.schema import RunConfig
from pipeline.data.blend import Phase

PRECISION = 10**6  # weights from sizes are rounded to a ratio of whole numbers up to this


def phases(config: RunConfig, num_tokens: Sequence[int]) -> list[Phase]:
    """The weights from the first sample on, then those of each phase.

    Args:
        num_tokens: of each source, for weights by size.
    """
    names = [source.name for source in config.data.train]
    first = Phase(start=0, weights=dict(zip(names, _first_weights(config, num_tokens), strict=True)))
    later = [
        Phase(start=start, weights=exact(phase.weights))
        for start, phase in zip(config.phase_starts, config.data.phases, strict=True)
    ]
    return [first, *later]


def exact(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """Decimal weights as they were written: 0.1 is a tenth."""
    return {name: Fraction(str(weight)) for name, weight in weights.items()}


def _first_weights(config: RunConfig, num_tokens: Sequence[int]) -> list[Fraction]:
    """Source of the temperature: Raffel et al., 2020, section 3.5.2, "temperature-scaled mixing"."""
    sources, temperature = config.data.train, config.data.temperature
    if temperature is not None:
        largest = max(num_tokens)
        scaled = [(size / largest) ** (1 / temperature) for size in num_tokens]
        return [Fraction(value).limit_denominator(PRECISION) or Fraction(1, PRECISION) for value in scaled]
    if any(source.tokens is not None for source in sources):
        return [Fraction(source.tokens or 0) for source in sources]
    given = {source.name: 1.0 if source.weight is None else source.weight for source in sources}
    return list(exact(given).values())
