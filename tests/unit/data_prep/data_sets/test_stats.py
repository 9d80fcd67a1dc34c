"""The figures of a data set, against plain ones."""

import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.data_sets.lengths import LengthCounts
from data_prep.data_sets.stats import render, stats
from tests.data_sets import run_data, write_data_set

some_lengths = st.lists(st.integers(0, 70) | st.integers(2**20 - 2, 2**20 + 2) | st.integers(0, 2**31 - 1), min_size=1)


@given(some_lengths, st.integers(1, 10))
def test_counts_are_exact(lengths: list[int], step: int) -> None:
    counts = LengthCounts()
    for at in range(0, len(lengths), step):
        counts.add(np.array(lengths[at : at + step], np.int32))
    assert (counts.shortest, counts.longest, counts.num_documents) == (min(lengths), max(lengths), len(lengths))
    assert counts.median == statistics.median(lengths)
    for bucket in counts.histogram():
        assert bucket.num_documents == sum(bucket.lowest <= length <= bucket.highest for length in lengths)
    assert sum(bucket.num_documents for bucket in counts.histogram()) == len(lengths)


def test_figures(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [[[1], [2, 3, 4]], [[5, 6, 7, 8, 9], []]], eod_id=None)
    figures = stats(folder)
    assert (figures["shards"], figures["documents"], figures["tokens"]) == (2, 4, 9)
    assert figures["tokens_per_byte"] == 0.25
    names = ("min", "median", "mean", "max")
    assert [figures[f"tokens_per_document_{name}"] for name in names] == [0, 2.0, 2.2, 5]
    assert [tuple(bucket.values()) for bucket in figures["length_histogram"]] == [
        (0, 0, 1),
        (1, 1, 1),
        (2, 3, 1),
        (4, 7, 1),
    ]
    assert figures["records"]["lines"] == 8
    shown = render(figures)
    for line in (
        "8 records were read, 4 became documents",
        "filtered: short  2",
        "bad: null        1",
        "4 - 7  1  ########################################",
        "ids made by none 1; parity: none; special tokens in text: split",
    ):
        assert line in shown


def test_figures_of_sentences(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [[[[1], [2, 3, 4]], [[5], [6], [7]]], [[[8]]]], split_sentences="de")
    figures = stats(folder)
    assert (figures["documents"], figures["sentences"], figures["tokens"]) == (3, 6, 8)
    assert (figures["sentences_per_document_mean"], figures["tokens_per_sentence_mean"]) == (2.0, 1.3)
    assert (figures["tokens_per_document_min"], figures["tokens_per_document_max"]) == (1, 4)
    assert "special tokens in text: split; sentences: de, none 1" in render(figures)
    assert "sentences" not in stats(write_data_set(tmp_path / "other", [[[1]]]))


def test_a_data_set_without_documents(tmp_path: Path) -> None:
    figures = stats(write_data_set(tmp_path / "data", [[]]))
    assert figures["tokens_per_document_median"] is None
    assert "unknown" in render(figures)


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    folder = write_data_set(tmp_path / "data", [[[1], [2, 3]]])
    assert run_data("stats", folder, *(["--json"] if as_json else [])) == 0
    assert ('"documents": 2' if as_json else "documents                   2") in capsys.readouterr().out
