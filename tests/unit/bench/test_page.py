"""A benchmark writes its section of a page, and nothing else of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import bench_gpu, bench_step
from tests.bench.page import head, machine, row, with_section, write_section

REPO = Path(__file__).resolve().parents[3]
PAGE = "# Benchmarks\n\nBefore.\n\n<!-- steps: begin -->\nold | figures\n<!-- steps: end -->\n\nAfter.\n"

texts = st.text().filter(lambda text: "<!--" not in text)


@given(before=texts, old=texts, after=texts, content=texts)
def test_what_is_beside_the_section_stays(before: str, old: str, after: str, content: str) -> None:
    page = f"{before}<!-- steps: begin -->\n{old}\n<!-- steps: end -->{after}"
    found = with_section(page, "steps", content)
    assert found == f"{before}<!-- steps: begin -->\n{content.strip()}\n<!-- steps: end -->{after}"
    assert with_section(found, "steps", content) == found


def test_other_sections_stay() -> None:
    page = PAGE + "<!-- gpu: begin -->\nkept\n<!-- gpu: end -->\n"
    assert with_section(page, "steps", "new") == page.replace("old | figures", "new")


@pytest.mark.parametrize(
    "page",
    [
        "",
        "<!-- steps: begin -->",
        "<!-- steps: end --><!-- steps: begin -->",
        PAGE + PAGE,
        PAGE + "<!-- steps: end -->",
    ],
)
def test_a_page_without_one_pair_of_marks_is_refused(page: str) -> None:
    with pytest.raises(SystemExit, match="steps: begin"):
        with_section(page, "steps", "new")


def test_a_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    write_section(path, "steps", "\n".join([*head("a", "b"), row(1, "2 µs")]))
    assert path.read_text(encoding="utf-8") == PAGE.replace("old | figures", "| a | b |\n|---|---|\n| 1 | 2 µs |")


@pytest.mark.parametrize("section", [bench_step.SECTION, bench_gpu.SECTION])
def test_the_page_has_the_sections(section: str) -> None:
    page = (REPO / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert "new figures" in with_section(page, section, "new figures")


def test_the_machine_is_told_with_its_versions() -> None:
    assert machine("a device").startswith("a device; Python 3.")
    assert "torch 2." in machine("a device")


def test_figures_of_tests_become_a_table_for_each_kind(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase name="test_speed[llama-bf16]"><properties><property name="MFU" value="41.0%" />'
        '<property name="memory, GB" value="9.1" /></properties></testcase>'
        '<testcase name="test_curve[t5]"><properties><property name="apart" value="0.001" /></properties></testcase>'
        '<testcase name="test_speed[t5-bf16]"><properties><property name="MFU" value="30.0%" />'
        '<property name="memory, GB" value="8.0" /></properties></testcase>'
        '<testcase name="test_nothing" /></testsuite></testsuites>',
        encoding="utf-8",
    )
    assert list(bench_gpu.tables(bench_gpu.recorded(report))) == [
        "",
        "| test | MFU | memory, GB |",
        "|---|---|---|",
        "| speed[llama-bf16] | 41.0% | 9.1 |",
        "| speed[t5-bf16] | 30.0% | 8.0 |",
        "",
        "| test | apart |",
        "|---|---|",
        "| curve[t5] | 0.001 |",
    ]
