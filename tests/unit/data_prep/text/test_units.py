"""Every byte and row group of the input is in exactly one unit."""

from hypothesis import given
from hypothesis import strategies as st

from data_prep.text.inputs import InputFile
from data_prep.text.units import COMPRESSED_SHARE, Piece, plan_units


def file(number: int, kind: str, compression: str, size: int, row_groups: tuple[int, ...], source: int) -> InputFile:
    return InputFile(
        path=f"/{number}",
        source=source,
        kind=kind,
        compression=compression if kind != "parquet" else "",
        size=size,
        mtime_ns=0,
        row_groups=row_groups if kind == "parquet" else (),
    )


files = st.lists(
    st.builds(
        file,
        number=st.integers(),
        kind=st.sampled_from(["jsonl", "txt", "parquet"]),
        compression=st.sampled_from(["", "", "gz", "zst"]),
        size=st.integers(0, 500),
        row_groups=st.lists(st.integers(1, 300), max_size=6).map(tuple),
        source=st.integers(0, 2),
    ),
    max_size=8,
).map(lambda found: sorted(found, key=lambda one: one.source))


@given(files=files, unit_bytes=st.integers(1, 600), whole_txt=st.booleans())
def test_units_hold_everything_once_and_in_order(files: list[InputFile], unit_bytes: int, whole_txt: bool) -> None:
    units = plan_units(files, unit_bytes=unit_bytes, whole_txt=whole_txt)
    assert [unit.number for unit in units] == list(range(len(units)))
    pieces = [piece for unit in units for piece in unit.pieces]
    assert [piece.file for piece in pieces] == sorted(piece.file for piece in pieces)
    for number, one in enumerate(files):
        own = [piece for piece in pieces if piece.file == number]
        end = len(one.row_groups) if one.kind == "parquet" else one.size
        assert [0, *(piece.stop for piece in own)] == [*(piece.start for piece in own), end]
        share = COMPRESSED_SHARE if one.compression else 1
        assert sum(piece.weight for piece in own) == (
            sum(one.row_groups) if one.kind == "parquet" else share * one.size
        )
    for unit in units:
        assert {files[piece.file].source for piece in unit.pieces} == {unit.source}
        assert unit.weight <= unit_bytes or len(unit.pieces) == 1
    assert len({unit.name for unit in units}) == len(units)


def test_a_large_file_is_cut_evenly_and_small_ones_are_put_together() -> None:
    planned = [file(0, "jsonl", "", 250, (), 0), file(1, "jsonl", "", 40, (), 0), file(2, "jsonl", "", 50, (), 0)]
    units = plan_units(planned, unit_bytes=100, whole_txt=False)
    assert [unit.pieces for unit in units] == [
        (Piece(0, 0, 83, 83),),
        (Piece(0, 83, 166, 83),),
        (Piece(0, 166, 250, 84),),
        (Piece(1, 0, 40, 40), Piece(2, 0, 50, 50)),
    ]


def test_small_row_groups_are_one_piece() -> None:
    [one, two] = plan_units([file(0, "parquet", "", 9, (30, 30, 30, 30), 0)], unit_bytes=100, whole_txt=False)
    assert (one.pieces, two.pieces) == ((Piece(0, 0, 3, 90),), (Piece(0, 3, 4, 30),))


def test_what_cannot_be_cut_is_one_unit() -> None:
    planned = [file(0, "txt", "", 500, (), 0), file(1, "jsonl", "gz", 500, (), 0)]
    assert len(plan_units(planned, unit_bytes=10, whole_txt=True)) == 2
