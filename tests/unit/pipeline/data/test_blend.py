"""Blends: exact shares in every block, no sample repeated or lost by a phase or a cap, and the same whoever asks."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.blend import MAX_BLOCK, Blend, BlendSource, Phase
from pipeline.errors import DataError

LENGTH = 3000
weights = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any)


def blend(*shares: object, **changes: object) -> Blend:
    """Sources a, b, c, ... of 100 samples with these weights; a change of the form a={...} is for one of them."""
    names = [chr(ord("a") + index) for index in range(len(shares))]
    sources = [
        BlendSource(**{"name": name, "key": f"key {name}", "num_samples": 100} | dict(changes.get(name, {})))  # type: ignore[call-overload]
        for name in names
    ]
    first = Phase(start=0, weights={name: Fraction(str(share)) for name, share in zip(names, shares, strict=True)})
    return Blend(sources, [first, *changes.get("phases", ())])  # type: ignore[misc]


@st.composite
def blends(draw: st.DrawFn) -> Blend:
    """Four sources with phases, caps and heirs."""
    starts = sorted(draw(st.sets(st.integers(1, LENGTH), max_size=3)))
    phases = [
        Phase(start=start, weights={name: Fraction(weight) for name, weight in zip("abcd", draw(weights), strict=True)})
        for start in starts
    ]
    caps = {
        name: {
            "max_samples": draw(st.none() | st.integers(1, 600)),
            "replaced_by": draw(st.none() | st.sampled_from("abcd")),
        }
        for name in "abcd"
    }
    return blend(*draw(weights), phases=phases, **caps)


def located(found: Blend, start: int = 0, stop: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    return found.locate(np.arange(start, min(stop, end_of(found))))


def end_of(found: Blend) -> int:
    """How many samples there are, LENGTH at most."""
    return int(found.counts(LENGTH).sum())


@given(blends())
def test_each_source_is_read_from_its_first_sample_on_without_a_gap(found: Blend) -> None:
    sources, indices = located(found)
    for source, described in enumerate(found.sources):
        own = indices[sources == source]
        assert np.array_equal(own, np.arange(len(own)))
        assert described.max_samples is None or len(own) <= described.max_samples


@given(blends(), st.integers(0, LENGTH))
def test_what_was_read_before_a_position_is_counted(found: Blend, position: int) -> None:
    sources, _ = located(found, 0, position)
    assert np.array_equal(found.counts(position), np.bincount(sources, minlength=4))


@given(blends(), st.sets(st.integers(0, LENGTH - 1)))
def test_any_positions_are_located_alone_as_with_all_others(found: Blend, places: set[int]) -> None:
    sources, indices = located(found)
    chosen = np.array([place for place in sorted(places) if place < len(sources)], np.int64)
    alone = found.locate(chosen)
    assert np.array_equal(alone[0], sources[chosen])
    assert np.array_equal(alone[1], indices[chosen])


@given(weights, st.integers(0, 20))
def test_the_share_of_each_source_is_exact_in_every_block(shares: list[int], block: int) -> None:
    found, total = blend(*shares), sum(shares)
    size = total // np.gcd.reduce(shares)
    sources, _ = found.locate(np.arange(block * size, (block + 1) * size))
    assert (np.bincount(sources, minlength=4) * total == np.array(shares) * size).all()


@given(weights, st.integers(0, 500), st.integers(1, 500))
def test_the_share_of_any_stretch_is_off_by_few_samples(shares: list[int], start: int, count: int) -> None:
    sources, _ = blend(*shares).locate(np.arange(start, start + count))
    expected = np.array(shares) / sum(shares) * count
    # A prefix is off by less than two samples, and a stretch is the difference of two prefixes.
    assert (np.abs(np.bincount(sources, minlength=4) - expected) < 4).all()


def test_weights_that_make_no_short_block_are_rounded_in_a_long_one() -> None:
    found = blend("0.1234567", "0.7654321", "0.1111112", "0.0000001")
    sources, _ = found.locate(np.arange(MAX_BLOCK))
    counts = np.bincount(sources, minlength=4)
    assert np.abs(counts - np.array([0.1234567, 0.7654321, 0.1111112, 0.0000001]) / 1.0000001 * MAX_BLOCK).max() <= 1.5
    assert counts[3] == 1, "a weight is never rounded to nothing"
    assert found.shares(0) == (counts / MAX_BLOCK).tolist()


def test_a_tiny_source_beside_a_huge_one() -> None:
    found = blend("0.001", "0.999", a={"num_samples": 3}, b={"num_samples": 10**12})
    far = 10**15
    sources, indices = found.locate(np.arange(far, far + 1000))
    assert np.bincount(sources).tolist() == [1, 999]
    assert indices[sources == 0].tolist() == [far // 1000]


def test_a_capped_source_gives_its_share_to_all_others_in_proportion() -> None:
    found = blend(2, 1, 1, a={"max_samples": 100})
    [change] = found.changes(LENGTH)
    assert found.counts(change).tolist()[0] == 100
    assert found.shares(0) == [0.5, 0.25, 0.25]
    assert found.shares(change) == [0, 0.5, 0.5]


def test_a_capped_source_gives_its_share_to_the_one_that_replaces_it() -> None:
    found = blend(2, 1, 1, 0, a={"max_samples": 100, "replaced_by": "d"}, d={"max_samples": 50, "replaced_by": "c"})
    first, second = found.changes(LENGTH)
    assert found.shares(first) == [0, 0.25, 0.25, 0.5]
    assert found.shares(second) == [0, 0.25, 0.75, 0]


def test_a_blend_of_capped_sources_ends() -> None:
    found = blend(1, 1, a={"max_samples": 10}, b={"max_samples": 30})
    found.check_length(40)
    with pytest.raises(DataError, match=r"reads 41 samples, but after 40 samples .* max_epochs .*run\.steps"):
        found.check_length(41)
    with pytest.raises(DataError, match="after 40 samples"):
        found.locate(np.array([39, 40]))


@given(blends(), blends(), st.integers(0, LENGTH))
def test_fingerprints_are_equal_just_where_the_past_is(one: Blend, other: Blend, position: int) -> None:
    if min(end_of(one), end_of(other)) < position:
        return
    same_past = all(
        np.array_equal(mine, theirs)
        for mine, theirs in zip(located(one, 0, position), located(other, 0, position), strict=True)
    )
    if one.fingerprint(position) == other.fingerprint(position):
        assert same_past


def test_what_lies_beyond_any_run_changes_nothing() -> None:
    beyond = blend(1, 1, a={"max_samples": 10**40}, phases=[Phase(start=10**30, weights={"a": Fraction(1)})])
    beyond.check_length(10**18)
    assert beyond.changes(10**18) == []
    assert beyond.fingerprint(10**18) == blend(1, 1).fingerprint(10**18)


def test_a_later_phase_or_source_leaves_the_past_as_it_was() -> None:
    plain = blend(1, 2)
    sources = [*plain.sources, BlendSource(name="c", key="key c", num_samples=7)]
    first = Phase(start=0, weights={"a": Fraction(1), "b": Fraction(2)})
    changed = Blend(sources, [first, Phase(start=900, weights={"c": Fraction(1)})])
    assert changed.fingerprint(900) == plain.fingerprint(900)
    assert changed.fingerprint(901) != plain.fingerprint(901)
    assert changed.locate(np.array([899, 900]))[0].tolist() == [plain.locate(np.array([899]))[0][0], 2]


def test_names_do_not_matter_but_content_does() -> None:
    plain = blend(1, 2)
    renamed = Blend(
        [BlendSource(name=f"new {one.name}", key=one.key, num_samples=one.num_samples) for one in plain.sources],
        [Phase(start=0, weights={"new a": Fraction(1), "new b": Fraction(2)})],
    )
    assert renamed.fingerprint(10) == plain.fingerprint(10)
    assert blend(1, 2, a={"key": "other"}).fingerprint(10) != plain.fingerprint(10)
