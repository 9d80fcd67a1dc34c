"""The input cut into units of work: each is a few hundred megabytes of records and becomes exactly one shard."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from data_prep.text.inputs import InputFile

UNIT_BYTES = 256 * 10**6
COMPRESSED_SHARE = 4  # bytes of text that a compressed byte is taken for; it only decides how small files are grouped


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one file.

    Attributes:
        file: its index in the list of files.
        start, stop: which part, in bytes; the records that start in it belong to the piece. Of a .parquet, which row
            groups. All of a file that cannot be read from its middle (compressed, or one document).
        weight: bytes of text, about; what progress counts.
    """

    file: int
    start: int
    stop: int
    weight: int


@dataclass(frozen=True, slots=True)
class Unit:
    """Pieces that become one shard, all of one source.

    Attributes:
        number: place in the order of the data set.
    """

    number: int
    source: int
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        """That of its shard."""
        return f"shard_{self.number:05d}"

    @property
    def weight(self) -> int:
        return sum(piece.weight for piece in self.pieces)


def plan_units(files: Sequence[InputFile], *, unit_bytes: int, whole_txt: bool) -> list[Unit]:
    """The units of a job, in order: a function of the arguments alone, so every process makes the same ones.

    Large files are cut evenly, small ones and small row groups are put together.

    Args:
        unit_bytes: of text, that a unit holds at most, unless a piece that cannot be cut is larger.
        whole_txt: a .txt is one document and not cut.
    """
    groups: list[list[Piece]] = []
    weight, source = 0, -1
    for index, file in enumerate(files):
        for piece in _pieces(index, file, unit_bytes, whole_txt):
            if file.source != source or weight + piece.weight > unit_bytes:
                groups.append([])
                weight, source = 0, file.source
            last = groups[-1][-1] if groups[-1] else None
            if last and last.file == index and last.stop == piece.start:
                groups[-1][-1] = Piece(index, last.start, piece.stop, last.weight + piece.weight)
            else:
                groups[-1].append(piece)
            weight += piece.weight
    return [Unit(number, files[group[0].file].source, tuple(group)) for number, group in enumerate(groups)]


def _pieces(index: int, file: InputFile, unit_bytes: int, whole_txt: bool) -> Iterator[Piece]:
    if file.kind == "parquet":
        for group, weight in enumerate(file.row_groups):
            yield Piece(index, group, group + 1, weight)
    elif file.compression:
        yield Piece(index, 0, file.size, file.size * COMPRESSED_SHARE)
    elif file.kind == "txt" and whole_txt:
        yield Piece(index, 0, file.size, file.size)
    else:
        count = max(-(-file.size // unit_bytes), 1)
        bounds = [file.size * number // count for number in range(count + 1)]
        for start, stop in pairwise(bounds):
            yield Piece(index, start, stop, stop - start)
