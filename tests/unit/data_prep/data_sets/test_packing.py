"""`pretrain data pack`: shard by shard, kept where it is whole, made again where it is not; damage is found."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.data_sets.packing import num_cut_by_concatenation, pack
from data_prep.data_sets.verify_packing import packing_problems
from data_prep.errors import DataError
from data_prep.format import idx_path
from data_prep.manifest import read_manifest
from data_prep.packing import packed_path, read_windows, record_path
from tests.data_sets import run_data, write_data_set

REPO = Path(__file__).parents[4]
SEQ_LEN = 7
SHARDS = [[range(5), range(3), range(11)], [], [range(30), range(2), range(2)]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "data", SHARDS)


def problems(folder: Path) -> list[str]:
    return list(packing_problems(folder, read_manifest(folder)))


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_data("pack", folder, "--seq-len", SEQ_LEN, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "data_set": str(folder),
        "seq_len": 7,
        "windows": 8,
        "fill": round((5 + 3 + 12 + 34 + 4) / 64, 4),
        "documents": 6,
        "cut_documents": 2,
        "cut_documents_by_concatenation": 2,
    }
    assert run_data("pack", folder, "--seq-len", SEQ_LEN) == 0
    assert "cut documents by concatenation  2" in capsys.readouterr().out


def test_sentences_are_packed_with_their_document(tmp_path: Path) -> None:
    plain = write_data_set(tmp_path / "plain", [[[1, 2, 3, 4], [], [5, 6, 7, 8, 9]]])
    cut = write_data_set(tmp_path / "cut", [[[[1], [2, 3, 4]], [], [[5, 6, 7], [], [8, 9]]]], split_sentences="en")
    for folder in (plain, cut):
        pack(folder, seq_len=4)
    one, other = (read_windows(folder, "shard_00000", 4) for folder in (plain, cut))
    assert one.starts.tolist() == other.starts.tolist()
    assert one.lengths.tolist() == other.lengths.tolist() == [5, 4]


def test_shards_that_are_whole_are_kept_and_others_made_again(folder: Path) -> None:
    first = pack(folder, seq_len=SEQ_LEN)
    contents = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    paths = [packed_path(folder, shard.name, SEQ_LEN) for shard in first.shards]
    inodes = [path.stat().st_ino for path in paths]
    record_path(folder, SEQ_LEN).unlink()
    paths[0].write_bytes(paths[0].read_bytes()[:-1] + b"\7")
    os.link(paths[2], folder / "held")  # so that its inode is not given to another file
    abandoned = folder / f".{paths[0].name}.{os.uname().nodename}.999999999.tmp"
    abandoned.touch()
    assert pack(folder, seq_len=SEQ_LEN) == first
    (folder / "held").unlink()
    assert {path: path.read_bytes() for path in sorted(folder.iterdir())} == contents
    assert paths[2].stat().st_ino == inodes[2]


def test_other_data_under_the_same_names_is_packed_anew(folder: Path) -> None:
    pack(folder, seq_len=SEQ_LEN)
    for path in folder.glob("shard_*.[bi][id]*"):
        path.unlink()
    write_data_set(folder, [[range(4)], [range(3)], [range(2)]])
    assert "packs other data" in problems(folder)[0]
    assert pack(folder, seq_len=SEQ_LEN).num_windows == 3
    assert problems(folder) == []


def test_several_sequence_lengths_stand_beside_each_other(folder: Path) -> None:
    assert problems(folder) == []
    assert pack(folder, seq_len=1).num_windows == 47  # as many as tokens that are predicted, two of them alone
    pack(folder, seq_len=10**6)
    assert [path.name for path in sorted(folder.glob("packed_*"))] == ["packed_1.json", "packed_1000000.json"]
    assert problems(folder) == []


def test_damage_is_found(folder: Path) -> None:
    pack(folder, seq_len=SEQ_LEN)
    path = packed_path(folder, "shard_00002", SEQ_LEN)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\7")
    assert ["checksum" in problem for problem in problems(folder)] == [True]
    path.unlink()
    assert ["No such file" in problem for problem in problems(folder)] == [True]
    path.write_bytes(packed_path(folder, "shard_00000", SEQ_LEN).read_bytes())
    assert ["describes another packing of shard_00002" in problem for problem in problems(folder)] == [True]
    path.write_bytes(content)
    record = record_path(folder, SEQ_LEN)
    record.write_text(record.read_text().replace("shard_00000", "shard_00009"))
    assert ["does not describe the shards" in problem for problem in problems(folder)] == [True]


def test_a_damaged_index_is_not_packed(folder: Path) -> None:
    path = idx_path(folder, "shard_00000")
    content = bytearray(path.read_bytes())
    content[34] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"shard_00000\.idx: its bytes changed"):
        pack(folder, seq_len=SEQ_LEN)
    assert not record_path(folder, SEQ_LEN).exists()


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a data set"):
        pack(tmp_path, seq_len=SEQ_LEN)
    with pytest.raises(SystemExit):
        run_data("pack", tmp_path, "--seq-len", 0)


def test_a_kill_at_any_moment_leaves_nothing_that_is_half(folder: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; import data_prep.atomic as atomic\n"
        "from data_prep.data_sets.packing import pack\n"
        "left, sync = int(sys.argv[1]), atomic.sync_file\n"
        "def count(path):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    sync(path)\n"
        "atomic.sync_file = count\n"
        f"pack(Path(sys.argv[2]), seq_len={SEQ_LEN})\n"
    )
    for writes in range(4):
        run = subprocess.run([sys.executable, "-c", script, str(writes), str(folder)], cwd=REPO, check=False)
        assert run.returncode == -signal.SIGKILL or writes == 3
        assert record_path(folder, SEQ_LEN).exists() == (run.returncode == 0)
    assert problems(folder) == []
    assert not list(folder.glob(".*"))


@given(st.lists(st.integers(0, 40)), st.integers(1, 12))
def test_the_figure_for_concatenation_is_that_of_a_plain_loop(lengths: list[int], seq_len: int) -> None:
    cut = start = 0
    for length in lengths:
        windows = [set(range(at, at + seq_len + 1)) for at in range(0, sum(lengths), seq_len)]
        cut += length > 0 and not any(set(range(start, start + length)) <= window for window in windows)
        start += length
    counts = np.array(lengths, np.int64)
    assert num_cut_by_concatenation(np.cumsum(counts) - counts, counts, seq_len) == cut
