"""What ranks on several machines read must be there on each of them, and the same: or all end with one message."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import train
from pipeline.checkpoint.manifest import find_checkpoints
from pipeline.config.load import to_yaml
from pipeline.errors import CheckpointError, UserError
from pipeline.monitor.metrics import read_metrics
from tests.data_sets import write_data_set
from tests.distributed import runs
from tests.distributed.runs import Layout

REPO = Path(__file__).parents[2]
TWO_RANKS: Layout = (1, 1, 2, 0)
ONE_RANK: Layout = (1, 1, 1, 0)


@pytest.fixture
def machines(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two folders with the same data sets; the first one is that in which this process is."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        shutil.copytree(data, folder)
    monkeypatch.chdir(folders[0])
    return folders


def test_equal_copies_on_each_machine_do(machines: list[Path], tmp_path: Path) -> None:
    config = runs.run_config(Path(), tmp_path / "run", TWO_RANKS, {"run.steps": 2})
    runs.start(runs.train_in, config, machines)
    assert len(read_metrics(tmp_path / "run")) == 2


def test_a_file_that_one_machine_lacks_ends_all_ranks(machines: list[Path], tmp_path: Path) -> None:
    config = runs.run_config(Path(), tmp_path / "run", TWO_RANKS)
    (machines[1] / "train/shard_00000.bin").unlink()
    with pytest.raises(UserError, match=r"rank 1 on .*: train/shard_00000\.bin is missing, its manifest says"):
        runs.start(runs.train_in, config, machines)


def test_other_tokens_on_one_machine_end_all_ranks(machines: list[Path], tmp_path: Path) -> None:
    config = runs.run_config(Path(), tmp_path / "run", TWO_RANKS)
    shutil.rmtree(machines[1] / "train")
    shutil.copytree(machines[1] / "validation", machines[1] / "train")
    with pytest.raises(UserError, match=r"train holds other tokens on .*\. Copy the same files to every machine"):
        runs.start(runs.train_in, config, machines)


def test_ranks_that_others_started_learn_what_is_wrong_on_one_machine(machines: list[Path], tmp_path: Path) -> None:
    """As under srun or torchrun: each rank reads the config itself, before it meets the others."""
    config = runs.run_config(Path(), tmp_path / "run", TWO_RANKS)
    for folder in machines:
        (folder / "run.yaml").write_text(to_yaml(config))
    shutil.rmtree(machines[1] / "train")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "train", "run.yaml"],
            env=os.environ
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
            | {"MASTER_PORT": port, "PYTHONPATH": str(REPO)},
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, folder in enumerate(machines)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=90)
        assert process.returncode == 1
        assert "error: rank 1 on " in stderr, stderr
        assert "data.train.0.path=train is wrong because train is neither a data set nor" in stderr


@pytest.mark.parametrize("layout", [(1, 1, 1, 0), (1, 2, 1, 0), (1, 1, 2, 0)], ids=str)
def test_each_label_of_a_batch_counts_alike_however_it_is_cut(data: Path, tmp_path: Path, layout: Layout) -> None:
    """Micro-batches with hardly a label beside full ones: the loss is the mean over the labels of the whole batch."""
    documents = [[[5]] * 300 + [list(range(10, 80))] * 4]
    sparse = write_data_set(tmp_path / "sparse", documents, vocab_size=390)
    held_out = write_data_set(tmp_path / "held_out", [documents[0][::-1]], vocab_size=390)
    common = {"data.train": str(sparse), "data.validation": str(held_out), "data.attend_within_documents": True}
    found = []
    for name, more in (("one", {"batch.micro_batch_size": 1}), ("all", {"batch.micro_batch_size": 4})):
        overrides = common | more | {"run.steps": 3, "model.vocab_size": 390, "checkpoint.resume": "never"}
        shape = layout if name == "one" else ONE_RANK
        config = runs.run_config(data, tmp_path / name, shape, overrides | {"batch.global_batch_size": 4})
        runs.start(train.train, config)
        records = read_metrics(tmp_path / name)
        found.append([record["train/loss"] for record in records] + [records[-1]["validation/loss"]])
        found[-1] += [record["train/grad_norm"] for record in records]
    assert found[0] == pytest.approx(found[1], rel=2e-5)


def test_a_batch_without_a_label_ends_the_run(data: Path, tmp_path: Path) -> None:
    lonely = write_data_set(tmp_path / "lonely", [[[5]] * 300], vocab_size=390)
    overrides = {"data.train": str(lonely), "data.attend_within_documents": True, "model.vocab_size": 390}
    with pytest.raises(UserError, match="no token of a whole batch is to be predicted"):
        runs.start(train.train, runs.run_config(data, tmp_path / "run", ONE_RANK, overrides))


def test_a_blend_goes_on_where_it_was_and_its_future_may_change(data: Path, tmp_path: Path) -> None:
    blend = [
        {"path": str(data / "train"), "name": "text", "weight": 0.75},
        {"path": str(data / "validation"), "name": "other", "weight": 0.25, "max_epochs": 9.0},
    ]

    def config(folder: str, **changes: object) -> object:
        overrides = {"data.train": blend, **{key.replace("_", ".", 1): value for key, value in changes.items()}}
        return runs.run_config(data, tmp_path / folder, ONE_RANK, overrides)

    def losses(folder: str) -> list[float]:
        return [record["train/loss"] for record in read_metrics(tmp_path / folder)]

    runs.start(train.train, config("whole"))  # type: ignore[arg-type]
    runs.start(train.train, config("parts", run_steps=8))  # type: ignore[arg-type]
    last = read_metrics(tmp_path / "parts")[-1]
    assert (last["tokens/text"], last["tokens/other"]) == (48 * 32, 16 * 32)
    with pytest.raises(UserError, match=r"weights, max_epochs or phases of data\.train differ before sample 64"):
        runs.start(train.train, config("parts", data_phases=[{"from_step": 8, "weights": {"text": 1}}]))  # type: ignore[arg-type]
    with pytest.raises((UserError, CheckpointError), match=r"data\.train no longer names other"):
        runs.start(train.train, config("parts", data_train=blend[:1]))  # type: ignore[arg-type]
    runs.start(train.train, config("parts", data_phases=[{"from_step": 15, "weights": {"text": 1}}]))  # type: ignore[arg-type]
    whole, parts = losses("whole"), losses("parts")
    assert parts[:14] == whole[:14]
    assert parts[14:] != whole[14:]
    assert find_checkpoints(tmp_path / "parts")
