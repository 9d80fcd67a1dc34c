"""The sections of a page that benchmarks write: what lies between two marks, and nothing beside it."""

import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "deepspeed", "megatron-core", "transformers")


def with_section(page: str, name: str, content: str) -> str:
    """`page` with `content` between the marks of section `name`.

    Raises:
        SystemExit: the page has not exactly one pair of these marks.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end) or begin in after or end in before + after:
        raise SystemExit(f"the page must have the lines {begin!r} and {end!r}, once each and in this order.")
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


def write_section(path: Path, name: str, content: str) -> None:
    """Replace section `name` of the page at `path`."""
    path.write_text(with_section(path.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def machine(device: str) -> str:
    """A sentence that says what ran: the device and the versions."""
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
    return f"{device}; Python {platform.python_version()}, {versions}."


def row(*cells: object) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(*cells: str) -> list[str]:
    """The first two rows of a table."""
    return [row(*cells), f"|{'---|' * len(cells)}"]
