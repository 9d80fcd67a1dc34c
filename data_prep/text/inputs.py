"""Which files a job reads: found by patterns, told apart by their names, remembered with size and time."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import DataError

STANDARD_INPUT = "-"
KINDS = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".txt": "txt", ".text": "txt", ".parquet": "parquet"}
OTHER_COMPRESSIONS = {".xz", ".bz2", ".lz4", ".zip", ".7z", ".br", ".tar", ".tgz"}
COMPRESSIONS = {".gz": "gz", ".zst": "zst"}
NAMES = "*.jsonl, *.json, *.ndjson, *.txt, *.text, each also with .gz or .zst, and *.parquet"


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file of the input, as it was when the job was planned.

    Attributes:
        path: absolute.
        source: index of the pattern that named it.
        kind: jsonl, txt or parquet.
        compression: gz, zst, or empty.
        size: in bytes.
        mtime_ns: when it was last changed.
        row_groups: of a .parquet: the bytes of each group of rows, uncompressed, all columns together.
    """

    path: str
    source: int
    kind: str
    compression: str
    size: int
    mtime_ns: int
    row_groups: tuple[int, ...] = ()


def find_sources(patterns: Sequence[str]) -> list[list[Path]]:
    """The files that each pattern names: a glob, a file, or a folder, of which it takes every text file at any depth.

    Sorted within a pattern. A file with two names, or that two patterns name, is taken once, as the first. In a folder,
    names that begin with a dot are left out, and so are data sets: the one that is made may lie among its input.

    Raises:
        DataError: a pattern matches no file, or a folder cannot be read.
    """
    seen: set[str] = set()
    sources = []
    for pattern in patterns:
        paths: dict[str, Path] = {}
        for path in _matches(pattern):
            paths.setdefault(os.path.realpath(path), path)
        if not paths:
            what = f"holds no {NAMES}" if os.path.isdir(pattern) else "matches no file"
            raise DataError(f"--input {pattern} {what}. Check the path; quote a pattern that holds * or **.")
        if os.path.isdir(pattern):
            _say_what_is_passed_over(pattern)
        sources.append([path for place, path in paths.items() if place not in seen])
        seen.update(paths)
    return sources


def is_pattern(text: str) -> bool:
    """Whether it names files that nobody has named one by one."""
    return not os.path.isfile(text)


def find_inputs(patterns: Sequence[str]) -> list[Path]:
    """All files of `find_sources` in one list; DataError too if one is of no kind that can be read."""
    found = [path for source in find_sources(patterns) for path in source]
    for path in found:
        kind_of(path)
    return found


def kind_of(path: Path) -> tuple[str, str]:
    """Kind and compression of a file, by its name; DataError if the name does not tell."""
    kind = _kind(path)
    if kind is None:
        raise DataError(f"--input {path} is of no kind that can be read ({NAMES}). Rename it, or give --format.")
    return kind, compression_of(path)


def compression_of(path: Path) -> str:
    """Compression of a file, by its name; empty if there is none."""
    return COMPRESSIONS.get(path.suffix.lower(), "")


def size_in_bytes(path: Path) -> int:
    """The size of an input file; DataError if there is none."""
    return stat(path).st_size


def stat(path: Path | str) -> os.stat_result:
    """Size and times of an input file; DataError if there is none."""
    try:
        return os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check the path.") from error


def describe(sources: Iterable[Iterable[Path]], *, kind: str = "auto") -> Iterator[InputFile]:
    """Each file of the sources with what the plan of a job needs to know of it.

    Args:
        kind: jsonl, txt or parquet for files whose names do not tell; auto looks at the names.

    Raises:
        DataError: a file cannot be read, or is of no kind that can be.
    """
    for number, paths in enumerate(sources):
        for path in paths:
            found, compression = kind_of(path) if kind == "auto" else (kind, compression_of(path))
            status = stat(path)
            place = os.path.abspath(path)
            if not _is_unicode(place):
                raise DataError(f"--input {place!r} has a name that is not UTF-8, which no record can hold. Rename it.")
            yield InputFile(
                path=place,
                source=number,
                kind=found,
                compression=compression,
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                row_groups=_row_groups(path) if found == "parquet" else (),
            )


def _matches(pattern: str) -> list[Path]:
    if os.path.isdir(pattern):
        return sorted(path for path in _visible_files(pattern) if _kind(path) is not None)
    if os.path.isfile(pattern):  # a name may hold brackets
        return [Path(pattern)]
    return [path for path in map(Path, sorted(glob.glob(pattern, recursive=True))) if _is_readable(path)]


def _visible_files(folder: str) -> Iterator[Path]:
    """All files at any depth, of a folder that is linked twice once; unlike a glob, it passes over none in silence."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        place = os.path.realpath(parent)
        if place in seen or _is_data_set(folders, names):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen.add(place)
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and _is_readable(path):
                yield path


def _is_readable(path: Path) -> bool:
    """Whether it is a file; DataError for what has the name of a text and is none, which would be lost in silence."""
    if not path.is_file() and not path.is_dir() and _kind(path) is not None:
        what = "a link to nothing" if path.is_symlink() else "no ordinary file"
        raise DataError(
            f"--input {path} is {what}. Restore or remove it; what comes out of a pipe is read by --input -."
        )
    return path.is_file()


def _is_data_set(folders: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a folder is what this program makes, or is making: its .json files are no text."""
    is_begun = "job.json" in names and "work" in folders
    return is_begun or ("manifest.json" in names and any(name.endswith(".idx") for name in names))


def _say_what_is_passed_over(folder: str) -> None:
    """One line about files that are compressed in a way that cannot be read: they may be text."""
    names = [path.name for path in _visible_files(folder) if path.suffix.lower() in OTHER_COMPRESSIONS]
    if names:
        print(
            f"--input {folder}: passed over {len(names)} files such as {names[0]}, which are not .gz or .zst",
            file=sys.stderr,
        )


def _refuse(error: OSError) -> None:
    raise DataError(f"--input {error.filename} cannot be read: {error.strerror}. Make it readable.") from error


def _kind(path: Path) -> str | None:
    name, ending = os.path.splitext(path.name.lower())
    if ending not in COMPRESSIONS:
        return KINDS.get(ending)
    kind = KINDS.get(os.path.splitext(name)[1])
    return None if kind == "parquet" else kind


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _row_groups(path: Path) -> tuple[int, ...]:
    from data_prep.text.parquet import open_parquet

    with open_parquet(path) as file:
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        return tuple(max(group.total_byte_size, 1) for group in groups)  # some writers leave it 0
