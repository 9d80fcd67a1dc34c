"""Whether counts are those of a distribution."""

from collections.abc import Sequence


def bound(degrees: int) -> float:
    """What a chi-square exceeds once in a million times.

    Source: Wilson and Hilferty, "The distribution of chi-square", 1931: its cube root is nearly normal.
    """
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + 4.753 * spread**0.5) ** 3)


def fits(counts: Sequence[float], shares: Sequence[float]) -> bool:
    """Whether counts are drawn from shares, at a confidence of one in a million. Shares of 0 must have no counts."""
    total = sum(counts)
    pairs = [(count, share * total / sum(shares)) for count, share in zip(counts, shares, strict=True)]
    if any(count and not expected for count, expected in pairs):
        return False
    likely = [(count, expected) for count, expected in pairs if expected]
    return sum((count - expected) ** 2 / expected for count, expected in likely) < bound(len(likely) - 1)


def same(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two rows of counts are drawn from one distribution, at a confidence of one in a million."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a + b]
    share = sum(first) / (sum(first) + sum(second))
    statistic = sum((a - share * (a + b)) ** 2 / (share * (1 - share) * (a + b)) for a, b in pairs)
    return statistic < bound(len(pairs) - 1)
