"""Two parts that share no document."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.data_sets.shuffle import shuffle
from data_prep.data_sets.split import split
from data_prep.data_sets.verify import verify
from data_prep.errors import DataError
from data_prep.manifest import Source, load_manifest
from tests.data_sets import read_documents, read_names, read_sentences, run_data, write_data_set

ROWS = [[number % 61, number % 7, 2] for number in range(300)]


@settings(max_examples=15)  # each writes files and syncs them
@given(st.lists(st.lists(st.integers(0, 999), max_size=4), min_size=1, max_size=60), st.floats(0.2, 0.8))
def test_nothing_is_lost_and_nothing_is_on_both_sides(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], share: float
) -> None:
    path = tmp_path_factory.mktemp("split")
    folder = write_data_set(path / "data", [rows[:7], rows[7:]], metadata=True)
    try:
        split(folder, path / "out", held_out=share, shard_tokens=5)
    except DataError:
        assert len(set(map(tuple, rows))) < 30
        assert not (path / "out").exists()
        return
    parts = [path / "out" / side for side in ("train", "held_out")]
    train, held_out = ([tuple(row) for row in read_documents(part)] for part in parts)
    assert not set(train) & set(held_out)
    assert Counter(train) + Counter(held_out) == Counter(map(tuple, rows))
    names = [f"data {number}" for number in range(len(rows))]
    assert sorted(read_names(parts[0]) + read_names(parts[1])) == sorted(names)
    for part in parts:
        assert [rows[int(name.split()[1])] for name in read_names(part)] == read_documents(part)
        verify(part)


def test_sources_that_are_split_with_one_seed_share_no_document_over_the_sides(tmp_path: Path) -> None:
    """A document that both have is on the same side in both, wherever it lies: so their sides can be blended."""
    sources = {"first": ROWS[:200], "second": ROWS[::-1][:200]}
    sides: dict[str, set[tuple[int, ...]]] = {"train": set(), "held_out": set()}
    for name, rows in sources.items():
        split(write_data_set(tmp_path / name, [rows[:50], rows[50:]]), tmp_path / f"{name}_split", held_out=0.3, seed=5)
        for side, seen in sides.items():
            seen |= set(map(tuple, read_documents(tmp_path / f"{name}_split" / side)))
    assert not sides["train"] & sides["held_out"]
    assert len(sides["train"] | sides["held_out"]) == len(set(map(tuple, ROWS)))


def test_order_and_shards_do_not_matter(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [ROWS])
    other = write_data_set(tmp_path / "other", [ROWS[200:], ROWS[:50], ROWS[50:200]])
    split(folder, tmp_path / "out", held_out=0.3, seed=5)
    split(other, tmp_path / "again", held_out=0.3, seed=5)
    split(folder, tmp_path / "another", held_out=0.3, seed=6)
    held_out = [sorted(read_documents(tmp_path / name / "held_out")) for name in ("out", "again", "another")]
    assert held_out[0] == held_out[1] != held_out[2]
    assert 0.15 < len(held_out[0]) / len(ROWS) < 0.45


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [ROWS])
    one, two = (split(folder, tmp_path / name / "out", held_out=0.3) for name in ("one", "two"))
    assert {side: manifest.fingerprint for side, manifest in one.items()} == {
        side: manifest.fingerprint for side, manifest in two.items()
    }


def test_sentences_stay_with_their_documents(tmp_path: Path) -> None:
    rows = [[[number], *([[number, 7]] * (number % 4))] for number in range(100)]
    folder = write_data_set(tmp_path / "data", [rows[:30], rows[30:]], split_sentences="en", metadata=True)
    flat = [[token for sentence in row for token in sentence] for row in rows]
    plain = write_data_set(tmp_path / "plain", [flat])
    for name in ("data", "plain"):
        split(tmp_path / name, tmp_path / f"of {name}", held_out=0.3, shard_tokens=40)
    sides = [read_sentences(tmp_path / "of data" / side) for side in ("train", "held_out")]
    assert [verify(tmp_path / "of data" / side).num_documents for side in ("train", "held_out")] == [*map(len, sides)]
    assert sorted(sides[0] + sides[1]) == sorted(rows)
    assert folder != plain  # where sentences end has no say in the side
    assert read_documents(tmp_path / "of data" / "held_out") == read_documents(tmp_path / "of plain" / "held_out")


def test_sources_are_followed_while_they_are_in_order(tmp_path: Path) -> None:
    sources = [
        Source(name=name, num_documents=count, num_tokens=3 * count, num_text_bytes=1)
        for name, count in (("books", 100), ("none", 0), ("web", 200))
    ]
    folder = write_data_set(tmp_path / "data", [ROWS[:150], ROWS[150:]], sources=sources)
    parts = split(folder, tmp_path / "out", held_out=0.3)
    held_out = {tuple(row) for row in read_documents(tmp_path / "out" / "held_out")}
    books = sum(tuple(row) in held_out for row in ROWS[:100])
    assert [source.num_documents for source in parts["held_out"].sources][:2] == [books, 0]
    assert parts["held_out"].num_text_bytes is None

    uneven = [
        Source(name=name, num_documents=150, num_tokens=n, num_text_bytes=1) for name, n in (("a", 400), ("b", 500))
    ]
    mixed = write_data_set(tmp_path / "mixed", [ROWS], sources=uneven)  # as after a shuffle
    [source] = split(mixed, tmp_path / "out2", held_out=0.3)["train"].sources
    assert source.name == "a + b"
    verify(tmp_path / "out2" / "train")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan"), 1e-9, 0.999999999])
def test_a_side_that_would_be_empty(tmp_path: Path, share: float) -> None:
    folder = write_data_set(tmp_path / "data", [ROWS])
    with pytest.raises(DataError, match="empty"):
        split(folder, tmp_path / "out", held_out=share)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_parts_can_be_worked_with(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", [ROWS])
    assert run_data("split", folder, "--out", tmp_path / "out", "--held-out", 0.3) == 0
    parts = [tmp_path / "out" / side for side in ("train", "held_out")]
    assert load_manifest(parts[0]).tokenizer_path(parts[0]).resolve() == (tmp_path / "tokenizer").resolve()
    shuffle(parts, tmp_path / "whole", seed=1)
    verify(tmp_path / "whole")
    assert sorted(read_documents(tmp_path / "whole")) == sorted(ROWS)
