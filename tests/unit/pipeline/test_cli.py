"""The command line: quick to answer, right exit codes, errors in one message."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import cli
from pipeline.errors import ConfigError, Interrupted
from tests.unit.pipeline.config.sections import sections

HEAVY = ("torch", "deepspeed", "megatron", "transformers", "tokenizers", "sentencepiece", "tensorboard")
HEAVY_FOR_HELP = (*HEAVY, "numpy", "pydantic", "yaml")

PROBE = """
import sys
from pipeline.cli import main
try:
    main(sys.argv[2:])
except SystemExit:
    pass
print("loaded:", *(name for name in sys.argv[1].split(",") if name in sys.modules))
"""


def probe(*argv: str, heavy: tuple[str, ...]) -> list[str]:
    """Which of `heavy` a command has imported: what makes it slow to answer (`tests/bench/bench_start.py` times it)."""
    command = [sys.executable, "-c", PROBE, ",".join(heavy), *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("command", [[], ["train"], ["quickstart"], ["data", "tokenize"], ["eval"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    assert probe(*command, "--help", heavy=HEAVY_FOR_HELP) == []


def test_validate_imports_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(sections({"parallel.tensor_parallel_size": 3})))
    assert probe("validate", str(path), "--json", heavy=HEAVY) == []


def test_validate_names_every_problem_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(sections({"data.train": str(tmp_path)})))
    argv = ["validate", str(path), "model.num_layer=3"]
    assert cli.main(argv) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: 2 problems:\n")
    assert "did you mean model.num_layers?" in shown.err
    assert cli.main([*argv, "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 2
    with pytest.raises(ConfigError):
        cli.main(["--debug", *argv])


def test_overrides_may_follow_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", str(tmp_path / "none.yaml"), "a.b=1", "--json", "run.steps=3"]) == 1
    assert "cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["train"],
        ["export", "run"],
        ["validate", "run.yaml", "--nonsense"],
        ["quickstart", "--layout", "2x2"],
        ["quickstart", "--layout", "0x1x1"],
        ["quickstart", "--steps", "0"],
        ["generate", "model", "--prompt", "a", "--temperature", "-1"],
        ["generate", "model", "--prompt", "a", "--seed", "99999999999999999999"],
        ["finetune", "model", "--train", "a.jsonl", "--validation", "a.jsonl", "--out", "b", "--seed", "-1"],
    ],
)
def test_wrong_usage_exits_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (ConfigError("run.steps=0 is wrong."), 1, "error: run.steps=0 is wrong.\n"),
        (Interrupted("saved step 3"), 75, "interrupted: saved step 3\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_codes(
    raised: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("pipeline.validate.load", fail)
    assert cli.main(["validate", "run.yaml"]) == code
    assert capsys.readouterr().err == message


def test_errors_that_are_ours_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("pipeline.validate.load", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["validate", "run.yaml"])


def test_layout_is_tensor_by_pipeline_by_data() -> None:
    args = cli.build_parser().parse_args(["quickstart", "--layout", "4x2x1"])
    assert args.layout == (4, 2, 1)
    assert cli.build_parser().parse_args(["quickstart"]).layout is None


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m pipeline.cli validate none.yaml --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in {"1", "141"}  # 1 where all was written before the reader left
    assert done.stderr == ""
