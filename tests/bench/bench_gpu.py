"""The tests of a GPU with what they measure, as a table: `python -m tests.bench.bench_gpu`; nothing without a GPU.

Each figure is one that a test in `tests/distributed/test_gpu.py` records.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from tests.bench.page import head, machine, row, write_section

ROOT = Path(__file__).resolve().parents[2]
TESTS = "tests/distributed/test_gpu.py"
SECTION = "gpu"

Recorded = Mapping[str, Mapping[str, str]]
"""Name of a test -> what it recorded."""


def recorded(report: Path) -> Recorded:
    """What the tests of a JUnit report recorded."""
    return {
        test.attrib["name"]: {one.attrib["name"]: one.attrib["value"] for one in test.iter("property")}
        for test in ElementTree.parse(report).iter("testcase")
    }


def tables(tests: Recorded) -> Iterator[str]:
    """A table for each set of figures that tests recorded together, in the order of the tests."""
    by_figures: dict[tuple[str, ...], list[str]] = {}
    for name, figures in tests.items():
        if figures:
            by_figures.setdefault(tuple(figures), []).append(name)
    for kinds, names in by_figures.items():
        yield from ("", *head("test", *kinds))
        yield from (row(name.removeprefix("test_"), *tests[name].values()) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="write the tables to the section of this page, too")
    args = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("no GPU: its tests are left out", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", TESTS, "-s", "-m", "gpu", f"--junitxml={report}"]
        ended = subprocess.run(command, cwd=ROOT, check=False)
        lines = [machine(torch.cuda.get_device_name()), *tables(recorded(report))]
    if ended.returncode:
        raise SystemExit(f"{TESTS} failed; the page stays as it is.")
    print(*lines, sep="\n")
    if args.page:
        write_section(args.page, SECTION, "\n".join(lines))


if __name__ == "__main__":
    main()
