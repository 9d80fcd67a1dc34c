"""Which files patterns name."""

import os
from pathlib import Path

import pytest

from data_prep.errors import DataError
from data_prep.text.inputs import describe, find_inputs, find_sources, kind_of, size_in_bytes


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_inputs_are_found_once_in_a_fixed_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "b.txt", "a.txt", "deep/c.jsonl")
    found = find_inputs([f"{tmp_path}/b.txt", f"{tmp_path}/*", f"{tmp_path}/**/*.jsonl"])
    assert [path.name for path in found] == ["b.txt", "a.txt", "c.jsonl"]
    monkeypatch.chdir(tmp_path)
    patterns = ["a.txt", f"{tmp_path}/a.txt", "./deep/../a.txt", "*.txt"]
    assert [[path.name for path in source] for source in find_sources(patterns)] == [["a.txt"], [], [], ["b.txt"]]


def test_a_folder_is_all_its_text_files_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl.gz", "B.TXT", "x/y/c.parquet", "d.csv", "e.parquet.gz", "f.gz", ".g.txt", ".git/h.txt")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "x")
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    assert [path.name for path in find_inputs([str(tmp_path)])] == ["B.TXT", "a.jsonl.gz", "c.parquet"]


def test_a_linked_folder_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.txt", "corpus/b.txt")
    (tmp_path / "corpus" / "more").symlink_to(tmp_path / "data")
    assert [path.name for path in find_inputs([str(tmp_path / "corpus")])] == ["b.txt", "a.txt"]


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.txt", "secret/b.txt")
    scan = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)  # tests may run as root, who reads everything
    with pytest.raises(DataError, match="secret cannot be read: Permission denied"):
        find_inputs([str(tmp_path)])


def test_a_name_that_holds_brackets_is_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].txt")
    assert [path.name for path in find_inputs([f"{tmp_path}/a[1].txt"])] == ["a[1].txt"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", ("jsonl", "")),
        ("a.JSON.GZ", ("jsonl", "gz")),
        ("a.ndjson.zst", ("jsonl", "zst")),
        ("a.b.text", ("txt", "")),
        ("a.parquet", ("parquet", "")),
    ],
)
def test_the_name_tells_the_kind(name: str, kind: tuple[str, str]) -> None:
    assert kind_of(Path(name)) == kind


def test_what_is_no_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\*\.txt matches no file\. .* quote a pattern"):
        find_inputs([f"{tmp_path}/*.txt"])
    with pytest.raises(DataError, match=r"holds no \*\.jsonl, "):
        find_inputs([str(tmp_path)])
    touch(tmp_path, "a.csv", "b.parquet.gz")
    for name in ("a.csv", "b.parquet.gz"):
        with pytest.raises(DataError, match=rf"{name} is of no kind .*\*\.jsonl, .* give --format"):
            find_inputs([f"{tmp_path}/{name}"])
    with pytest.raises(DataError, match=r"missing\.txt cannot be read: No such file"):
        size_in_bytes(tmp_path / "missing.txt")


def test_files_are_described(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(b"abc")
    (tmp_path / "b.gz").write_bytes(b"")
    one, other = describe([[tmp_path / "a.dat"], [tmp_path / "b.gz"]], kind="txt")
    assert (one.path, one.source, one.kind, one.compression, one.size) == (str(tmp_path / "a.dat"), 0, "txt", "", 3)
    assert (other.source, other.compression) == (1, "gz")
    with pytest.raises(DataError, match="of no kind"):
        list(describe([[tmp_path / "a.dat"]]))


def test_a_name_that_no_record_can_hold_is_refused(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.txt"
    with open(path, "wb"):
        pass
    with pytest.raises(DataError, match="has a name that is not UTF-8"):
        list(describe([[Path(os.fsdecode(path))]]))


def test_a_data_set_in_a_folder_of_text_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    for folder, names in (("made", ["manifest.json", "shard_00000.idx"]), ("begun", ["job.json", "work/x.lock"])):
        for name in (*names, "shard_00000.json"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).touch()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "manifest.json").touch()  # somebody's own file of this name
    assert [path.name for path in find_inputs([str(tmp_path)])] == ["a.jsonl", "manifest.json"]


def test_what_would_be_lost_in_silence_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.jsonl.xz").touch()
    find_inputs([str(tmp_path)])
    assert "passed over 1 files such as b.jsonl.xz" in capsys.readouterr().err
    (tmp_path / "c.jsonl").symlink_to("nowhere")
    for pattern in (str(tmp_path), f"{tmp_path}/*.jsonl"):
        with pytest.raises(DataError, match=r"c\.jsonl is a link to nothing"):
            find_inputs([pattern])


def test_a_file_with_two_names_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    assert [path.name for path in find_inputs([str(tmp_path), f"{tmp_path}/b.jsonl"])] == ["a.jsonl"]
