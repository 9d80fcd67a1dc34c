"""How far two runs are apart."""

from collections.abc import Sequence

from pipeline.config.schema import RunConfig
from tests.distributed.runs import figures


def apart(found: RunConfig, expected: RunConfig, name: str = "train/loss") -> float:
    """The largest difference of one figure of any step, relative to the expected value."""
    return largest_difference(figures(found, name), figures(expected, name))


def largest_difference(found: Sequence[float], expected: Sequence[float]) -> float:
    assert len(found) == len(expected) > 0
    return max(abs(one - other) / abs(other) for one, other in zip(found, expected, strict=True))
