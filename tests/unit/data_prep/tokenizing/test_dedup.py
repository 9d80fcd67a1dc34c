"""Exact duplicates: the first of each text stays, whatever the cut into units and ranges."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.tokenizing import dedup

TEXTS = st.lists(st.text("abé \n", max_size=4), max_size=60)


def dropped(work: Path, units: list[list[str]], buckets: int) -> list[list[int]]:
    for number, texts in enumerate(units):
        dedup.write_hashes(dedup.hashes_path(work, number), [texts[:2], texts[2:]], lambda: "checksum")
    for bucket in range(buckets):
        dedup.write_duplicates(work, bucket, buckets, len(units))
    return [dedup.duplicates_of(work, number, buckets).tolist() for number in range(len(units))]


@given(texts=TEXTS, cut=st.integers(0, 60), buckets=st.integers(1, 5))
def test_the_first_of_each_text_stays(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cut: int, buckets: int
) -> None:
    units = [texts[:cut], texts[cut:], []]
    seen: set[str] = set()
    expected = []
    for unit in units:
        expected.append([])
        for place, text in enumerate(unit):
            if dedup.normalized(text) in seen:
                expected[-1].append(place)
            seen.add(dedup.normalized(text))
    assert dropped(tmp_path_factory.mktemp("work"), units, buckets) == expected


def test_what_counts_as_equal() -> None:
    assert dedup.normalized(" a\n\tb  ") == dedup.normalized("a b")
    assert dedup.normalized("e\u0301") == dedup.normalized("é")
    assert dedup.normalized("A") != dedup.normalized("a")


def test_ranges_bound_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped(tmp_path, [[str(i) for i in range(100)], [str(i) for i in range(50)]], 1)
    assert dedup.num_buckets(tmp_path, 2) == 1
    monkeypatch.setattr(dedup, "MAX_BUCKET_DOCUMENTS", 40)
    assert dedup.num_buckets(tmp_path, 2) == 4


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    dropped(tmp_path, [["a"] * 500], 1)
    path = dedup.hashes_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match=r"unit_00000\.hashes\.npy cannot be read.*Delete it"):
        dedup.num_buckets(tmp_path, 1)
