"""Ranks learn from the environment who they are and where they meet."""

from pathlib import Path

import pytest

from pipeline.errors import ClusterError
from pipeline.rendezvous import IN_A_STEP, init_method, joined_rank, started_rank

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize("environ", [TORCHRUN, SLURM, TORCHRUN | {"SLURM_PROCID": "0"}, SLURM | TORCHRUN])
def test_a_started_rank_knows_its_place(environ: dict[str, str]) -> None:
    assert joined_rank(environ) == TORCHRUN


def test_torchrun_inside_a_slurm_job_counts() -> None:
    assert joined_rank(TORCHRUN | SLURM | {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}) == TORCHRUN


@pytest.mark.parametrize("missing", TORCHRUN)
def test_half_an_environment_is_none(missing: str) -> None:
    assert joined_rank({}) is None
    assert joined_rank({name: value for name, value in TORCHRUN.items() if name != missing}) is None


def test_a_batch_script_is_no_rank() -> None:
    assert joined_rank({name: value for name, value in SLURM.items() if name != IN_A_STEP}) is None


def test_started_ranks_meet_through_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = started_rank(1, 2, tmp_path)
    assert joined_rank(environment) == {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert init_method() == f"file://{tmp_path}/store"


def test_joined_ranks_must_know_where_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(ClusterError, match="MASTER_ADDR must be set"):
        init_method()
    monkeypatch.setenv("MASTER_ADDR", "node1")
    assert init_method() == "env://"


def test_one_task_alone_is_no_rank_among_others() -> None:
    assert joined_rank(SLURM | {"SLURM_NTASKS": "1"}) is None
