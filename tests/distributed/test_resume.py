"""A run that was stopped and went on is, to the bit, the run that was not stopped."""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline import train
from pipeline.checkpoint import files, load
from pipeline.checkpoint.manifest import find_checkpoints
from pipeline.config.schema import RunConfig
from pipeline.errors import CheckpointError, Interrupted, UserError
from pipeline.models.families import parameter_table
from pipeline.monitor.metrics import read_metrics
from tests.distributed import runs
from tests.distributed.runs import Layout
from tests.small_models import make_data

STOPPED_AFTER = 10
# Rates that change by the step, so that going on at another place of the schedule shows.
BASE: Mapping[str, Any] = {
    "checkpoint.every_steps": STOPPED_AFTER,
    "optimizer.lr": 1e-3,
    "schedule.decay": "cosine",
    "schedule.warmup_steps": 4,
}


@dataclass(frozen=True, kw_only=True)
class ResumeCase:
    layout: Layout
    dtype: str

    @property
    def overrides(self) -> dict[str, Any]:
        return {**BASE, "precision.dtype": self.dtype}


CASES = (
    ResumeCase(layout=(1, 1, 1, 0), dtype="fp32"),
    ResumeCase(layout=(2, 2, 1, 1), dtype="bf16"),
    ResumeCase(layout=(1, 1, 2, 2), dtype="bf16"),
    ResumeCase(layout=(1, 1, 2, 3), dtype="fp32"),
)
SMALLEST = CASES[0]

Whole = Callable[[ResumeCase], RunConfig]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The run of a case, not stopped, with checkpoints after steps 10 and 20."""
    known: dict[ResumeCase, RunConfig] = {}

    def get(case: ResumeCase) -> RunConfig:
        if case not in known:
            config = runs.run_config(data, tmp_path_factory.mktemp("run"), case.layout, case.overrides)
            runs.start(train.train, config)
            known[case] = config
        return known[case]

    return get


@pytest.fixture
def copy(whole: Whole, tmp_path: Path) -> Path:
    """The run directory of the smallest case, to be damaged."""
    return shutil.copytree(whole(SMALLEST).run.dir, tmp_path / "run")


def same_figures(found: RunConfig, expected: RunConfig) -> bool:
    """Whether both runs have each step once, with figures equal to the bit."""
    steps = [record["step"] for record in read_metrics(Path(found.run.dir))]
    return steps == list(range(1, runs.STEPS + 1)) and all(
        runs.figures(found, name) == runs.figures(expected, name) for name in ("train/loss", "train/grad_norm")
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_that_was_asked_to_stop_goes_on(case: ResumeCase, whole: Whole, data: Path, tmp_path: Path) -> None:
    config = runs.run_config(data, tmp_path, case.layout, case.overrides | {"checkpoint.every_steps": None})
    with pytest.raises(Interrupted, match="saved after step 10 of 20; the same command goes on"):
        runs.start(runs.train_and_stop, config, STOPPED_AFTER)
    assert len(read_metrics(tmp_path)) == STOPPED_AFTER
    runs.start(train.train, config)
    assert same_figures(config, whole(case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_that_got_further_than_its_last_good_checkpoint_goes_on(
    case: ResumeCase, whole: Whole, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole(case).run.dir, tmp_path / "run")
    config = runs.run_config(data, tmp_path / "run", case.layout, case.overrides)
    newest = find_checkpoints(tmp_path / "run")[0]
    flip_a_byte(newest)
    runs.start(train.train, config)
    assert same_figures(config, whole(case))
    log = (tmp_path / "run/log/rank_00000.log").read_text()
    assert "passing over checkpoint step_0000020" in log
    assert f"going on from {tmp_path / 'run/checkpoints/step_0000010'}" in log
    found = files.newest(tmp_path / "run")
    assert found, "the damaged checkpoint was not replaced by the run that came by its step again"
    assert found[1].step == runs.STEPS
    assert not list((tmp_path / "run/checkpoints").glob("*.tmp"))


def largest_file(checkpoint: Path) -> Path:
    return max(checkpoint.glob("*.pt"), key=lambda path: path.stat().st_size)


def flip_a_byte(checkpoint: Path) -> None:
    path = largest_file(checkpoint)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(checkpoint: Path) -> None:
    path = largest_file(checkpoint)
    path.write_bytes(path.read_bytes()[:-100])


def remove_a_file(checkpoint: Path) -> None:
    largest_file(checkpoint).unlink()


def remove_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def cut_manifest(checkpoint: Path) -> None:
    path = checkpoint / "manifest.json"
    path.write_text(path.read_text()[:-100])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_byte, "has changed since it was saved"),
        (cut, "the checkpoint is torn"),
        (remove_a_file, "is missing"),
        (remove_manifest, "manifest.json cannot be read"),
        (cut_manifest, "manifest.json is damaged"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    damage: Callable[[Path], None], reason: str, copy: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    damage(tmp_path / "run/checkpoints/step_0000020")
    logging.getLogger("pretrain").propagate = True
    found = files.newest(copy)
    assert found
    assert found[0].name == "step_0000010"
    assert found[1].step == STOPPED_AFTER
    [message] = caplog.messages
    assert message.startswith("passing over checkpoint step_0000020: ")
    assert reason in message


def test_what_a_kill_left_of_a_checkpoint_is_no_checkpoint(copy: Path) -> None:
    shutil.copytree(copy / "checkpoints/step_0000020", copy / "checkpoints/step_0000021.tmp")
    found = files.newest(copy)
    assert found
    assert found[0].name == "step_0000020"
    assert files.newest(copy / "nothing") is None


@pytest.mark.parametrize(
    ("layout", "overrides", "differs"),
    [
        ((1, 1, 1, 0), {"model.num_layers": 2}, "model.num_layers=2, but the checkpoint has 4"),
        ((1, 1, 1, 0), {"model.tie_embeddings": True}, "model.tie_embeddings=True, but the checkpoint has False"),
        ((2, 1, 1, 0), {}, "parallel.tensor_parallel_size=2, but the checkpoint has 1"),
        (
            (1, 1, 1, 1),
            {"precision.dtype": "bf16"},
            "parallel.zero_stage=1, but the checkpoint has 0; precision.dtype='bf16', but the checkpoint has 'fp32'",
        ),
        ((1, 1, 1, 0), {"run.seed": 5}, "run.seed=5, but the checkpoint has 1234"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_run_is_refused_by_name(
    whole: Whole, data: Path, tmp_path: Path, layout: Layout, overrides: dict[str, Any], differs: str
) -> None:
    found = files.newest(Path(whole(SMALLEST).run.dir))
    assert found
    config = runs.run_config(data, tmp_path, layout, SMALLEST.overrides | overrides)
    with pytest.raises(CheckpointError) as caught:
        load.refuse_another_run(*found, config, parameter_table(config.model), found[1].data)
    assert str(caught.value) == (f"{found[0]} is of another run: {differs}. Restore these, or give another run.dir.")


def test_a_refused_checkpoint_ends_the_command_and_is_left_as_it_is(copy: Path, tmp_path: Path) -> None:
    other = make_data(tmp_path / "other", vocab_size=391)
    config = runs.run_config(other, copy, SMALLEST.layout, SMALLEST.overrides)
    before = sorted(path.relative_to(copy) for path in copy.glob("checkpoints/**/*"))
    with pytest.raises(
        UserError, match=r"model\.vocab_size=391, but the checkpoint has 390; data\.train no longer names"
    ):
        runs.start(train.train, config)
    assert sorted(path.relative_to(copy) for path in copy.glob("checkpoints/**/*")) == before
    assert len(read_metrics(copy)) == runs.STEPS


def test_what_may_change_does(whole: Whole, data: Path, tmp_path: Path) -> None:
    found = files.newest(Path(whole(SMALLEST).run.dir))
    assert found
    changes = {"run.steps": 30, "optimizer.lr": 5e-4, "batch.global_batch_size": 16, "monitor.log_every_steps": 2}
    config = runs.run_config(data, tmp_path, SMALLEST.layout, SMALLEST.overrides | changes)
    load.refuse_another_run(*found, config, parameter_table(config.model), found[1].data)


def test_a_longer_run_goes_on_from_the_end(copy: Path, data: Path) -> None:
    config = runs.run_config(data, copy, SMALLEST.layout, SMALLEST.overrides | {"run.steps": 22})
    before = runs.figures(config)
    runs.start(train.train, config)
    assert runs.figures(config)[: runs.STEPS] == before
    assert len(runs.figures(config)) == 22


def test_a_used_run_directory_is_refused_where_a_run_is_not_to_go_on(copy: Path, data: Path) -> None:
    before = sorted((copy / "checkpoints").iterdir())
    config = runs.run_config(data, copy, SMALLEST.layout, SMALLEST.overrides | {"checkpoint.resume": "never"})
    with pytest.raises(UserError, match=r"checkpoint\.resume=never starts anew, but run\.dir="):
        runs.start(train.train, config)
    assert sorted((copy / "checkpoints").iterdir()) == before


def test_a_damaged_checkpoint_ahead_costs_no_good_one(copy: Path, data: Path) -> None:
    """The newest one is torn: the run goes on from the one before, and what it saves is not taken for the older one."""
    (newest, *_) = find_checkpoints(copy)
    (newest / "manifest.json").unlink()
    ahead = newest.rename(newest.with_name("step_0000099"))
    overrides = {"run.steps": runs.STEPS + 1, "checkpoint.keep_last": 1}
    runs.start(train.train, runs.run_config(data, copy, SMALLEST.layout, SMALLEST.overrides | overrides))
    assert ahead.is_dir()
    found = files.newest(copy)
    assert found
    assert found[1].step == runs.STEPS + 1


def test_only_the_newest_are_kept(data: Path, tmp_path: Path) -> None:
    overrides = {"checkpoint.every_steps": 1, "checkpoint.keep_last": 2, "run.steps": 4}
    (tmp_path / "checkpoints/step_0000009.tmp").mkdir(parents=True)
    runs.start(train.train, runs.run_config(data, tmp_path, SMALLEST.layout, overrides))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", "step_0000003", "step_0000004"]
    assert (tmp_path / "checkpoints/latest").read_text() == "step_0000004\n"


CHANGES = {
    "same": {},
    "decay": {"optimizer.weight_decay": 500.0},
    "epsilon": {"optimizer.epsilon": 1.0},
}


@pytest.mark.parametrize("layout", [(1, 1, 1, 0), (1, 2, 1, 1), (1, 1, 2, 2), (1, 1, 2, 3)], ids=str)
def test_changed_settings_of_the_optimizer_are_obeyed(data: Path, tmp_path: Path, layout: Layout) -> None:
    """A decay so strong, and an epsilon so large, that the losses of the next steps show them."""
    losses = {}
    shared = {"precision.dtype": "fp32" if layout[3] == 0 else "bf16", "optimizer.lr": 1e-3}
    for name, changes in CHANGES.items():
        folder = tmp_path / name
        runs.start(train.train, runs.run_config(data, folder, layout, shared | {"run.steps": 2}))
        config = runs.run_config(data, folder, layout, shared | {"run.steps": 5} | changes)
        runs.start(train.train, config)
        losses[name] = runs.figures(config)[-1]
    assert abs(losses["decay"] - losses["same"]) > 1e-3
    assert abs(losses["epsilon"] - losses["same"]) > 1e-3


def test_where_all_checkpoints_are_damaged_nothing_is_begun(copy: Path, data: Path) -> None:
    for folder in find_checkpoints(copy):
        (folder / "manifest.json").write_text("{")
    config = runs.run_config(data, copy, SMALLEST.layout, SMALLEST.overrides)
    with pytest.raises(UserError, match=r"all \d+ checkpoints of .* are damaged"):
        runs.start(train.train, config)


def test_a_run_whose_gradients_are_no_numbers_is_ended(data: Path, tmp_path: Path) -> None:
    overrides = {"optimizer.lr": 1e30, "run.steps": 4}
    with pytest.raises(UserError, match="training has diverged"):
        runs.start(train.train, runs.run_config(data, tmp_path, (1, 1, 1, 1), overrides))
    assert not find_checkpoints(tmp_path)
