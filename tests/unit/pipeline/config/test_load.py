"""Reading a run config: YAML, overrides, every problem at once, and the data sets it names."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_prep.manifest import TokenizerRecord, make_manifest, save_manifest
from pipeline.config.load import build, load, resolved, to_yaml
from pipeline.config.schema import SECTIONS, RunConfig
from pipeline.errors import ConfigError
from tests.unit.pipeline.config.sections import sections


@pytest.fixture
def run_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(sections()))
    return path


def problems(path: Path, *overrides: str, check_data: bool = False) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides, check_data=check_data)
    return caught.value.problems


def test_overrides_are_yaml_and_the_last_one_wins(run_yaml: Path) -> None:
    overrides = ["run.steps=5", "optimizer.lr=1e-4", "run.steps=7", "data.validation=held", "model.tie_embeddings=true"]
    config = load(run_yaml, overrides, check_data=False)
    assert (config.run.steps, config.optimizer.lr, config.data.validation) == (7, 1e-4, "held")
    assert config.model.tie_embeddings is True


def test_derived_values_follow_what_they_derive_from(run_yaml: Path) -> None:
    config = load(run_yaml, ["model.num_attention_heads=8", "model.head_dim=null"], check_data=False)
    assert (config.model.num_key_value_heads, config.model.head_dim) == (8, 8)
    assert (config.decay_steps, config.grad_accum_dtype) == (config.run.steps, "fp32")


@given(lr=st.floats(1e-30, 1e30), folder=st.text(min_size=1), std=st.floats(0, 1e300, exclude_min=True))
def test_a_resolved_file_loads_as_the_same_config(
    tmp_path_factory: pytest.TempPathFactory, lr: float, folder: str, std: float
) -> None:
    config = build(
        sections({"optimizer.lr": lr, "data.train": folder, "model.init_std": std, "precision.dtype": "fp32"}),
        check_data=False,
    )
    path = tmp_path_factory.getbasetemp() / "resolved.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load(path, check_data=False) == config
    assert build(resolved(config), check_data=False) == config


def test_all_problems_come_at_once(run_yaml: Path) -> None:
    found = problems(run_yaml, "model.num_layer=3", "run.steps=ten", "parallel.zero_stage=4", "precision.dtype=bf61")
    assert sorted(found) == [
        "model.num_layer=3 is wrong because there is no such key; did you mean model.num_layers?",
        "parallel.zero_stage=4 is wrong because it must be 3 or less; set it to 3 or less.",
        "precision.dtype=bf61 is wrong because only fp32, bf16 or fp16 can be used; choose one of them.",
        "run.steps=ten is wrong because it is not a whole number; write a whole number.",
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("modle.num_layers=3", "modle is wrong because there is no such section; did you mean model?"),
        ("run.lr=1", "run.lr=1 is wrong because there is no such key; did you mean optimizer.lr?"),
        ("run.zzz=1", "the keys of run are dir, seed, steps, device."),
        ("steps=3", "'steps=3' is not an override; write section.key=value."),
        ("run.steps", "'run.steps' is not an override"),
        ("run.steps=[1", "run.steps=[1 is not YAML"),
        ("run.dir=\x01", "run.dir=\x01 is not YAML: unacceptable character"),
        ("run.seed=0x_", "run.seed=0x_ is not YAML: '0x_' is no int that can be read"),
        (f"run.seed={'1' * 5000}", "1111' is no int that can be read"),
        (f"run.dir={'[' * 5000}", "it is nested too deeply"),
        ("run.steps=true", "run.steps=true is wrong because it is not a whole number"),
        ("run.steps=3.0", "run.steps=3.0 is wrong because it is not a whole number"),
        ("run.seed=-1", "run.seed=-1 is wrong because it must be 0 or more"),
        ("optimizer.lr=.nan", "optimizer.lr=nan is wrong because it is not a finite number"),
        ("optimizer.lr=0", "optimizer.lr=0 is wrong because it must be above 0"),
        ("optimizer.beta1=1", "optimizer.beta1=1 is wrong because it must be below 1"),
        ("data.train=", "data.train=null is wrong because it is neither a path nor a list of sources"),
        ("model.tie_embeddings=1", "model.tie_embeddings=1 is wrong because it is neither true nor false"),
    ],
)
def test_wrong_overrides_are_refused(run_yaml: Path, override: str, expected: str) -> None:
    [problem] = problems(run_yaml, override)
    assert expected in problem


def test_missing_keys_are_named_with_their_meaning(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    found = problems(path)
    required = {
        f"{section}.{name}"
        for section, fields in SECTIONS.items()
        for name, info in fields.model_fields.items()
        if info.is_required()
    }
    assert {problem.split(" is missing")[0] for problem in found} == required


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run:\n  steps: 1\n  dir: a\n  steps: 2\n", "line 4 sets 'steps' again, after line 2"),
        ("monitor: 4\n", "monitor=4 is wrong because monitor is a section"),
        ("extra: 4\n", "extra=4 is wrong because there is no such key; the sections are run, model,"),
    ],
)
def test_malformed_sections_are_told_beside_the_rest(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    found = problems(path)
    assert any(expected in problem for problem in found), found
    assert any(problem.startswith("model.num_layers is missing") for problem in found)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"run: [1", "is not YAML"),
        (b"- 1", "holds no sections"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"run: !!python/object:os.system {}", "is not YAML"),
        (b"run: {dir: \0}", "is not YAML: unacceptable character"),
        (b"run:\n  dir: 2020-13-45\n", "'2020-13-45' is no timestamp that can be read; quote it if it is text in"),
        (b"run: !!timestamp abc", "'abc' is no timestamp"),
        (b"run: !!bool abc", "'abc' is no bool"),
        (b"run: !!int ''", "'' is no int"),
        (b"[" * 5000, "it is nested too deeply"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_bytes(content)
    [problem] = problems(path)
    assert expected in problem
    assert str(path) in problem


def test_configs_do_not_change() -> None:
    config = build(sections(), check_data=False)
    with pytest.raises(ValueError, match="frozen"):
        config.run.steps = 5  # type: ignore[misc]


def test_every_field_says_what_it_is() -> None:
    silent = [
        f"{section}.{name}"
        for section, fields in SECTIONS.items()
        for name, info in fields.model_fields.items()
        if not info.description
    ]
    assert not silent
    assert set(SECTIONS) == set(RunConfig.model_fields)


def data_set(folder: Path, *, vocab_size: int = 128, sha256: str = "a") -> Path:
    """A manifest alone: no shards, so that nothing else needs to be there."""
    folder.mkdir()
    tokenizer = TokenizerRecord(path="../tokenizer", sha256=sha256)
    manifest = make_manifest(
        vocab_size=vocab_size, dtype="uint16", eod_id=0, tokenizer=tokenizer, sources=(), shards=()
    )
    save_manifest(manifest, folder)
    return folder


def test_vocabulary_comes_from_the_data_set(tmp_path: Path) -> None:
    made = sections({"data.train": str(data_set(tmp_path / "train", vocab_size=777)), "model.vocab_size": None})
    with pytest.raises(ConfigError, match="its 0 tokens do not fill one sample") as caught:
        build(made)
    assert len(caught.value.problems) == 1


def test_data_sets_must_fit_the_model_and_each_other(tmp_path: Path) -> None:
    changes = {
        "data.train": str(data_set(tmp_path / "train", vocab_size=777)),
        "data.validation": str(data_set(tmp_path / "held", sha256="b")),
    }
    with pytest.raises(ConfigError) as caught:
        build(sections(changes))
    text = str(caught.value)
    assert "model.vocab_size=128 is wrong because data.train holds ids up to 776; set it to 777" in text
    assert "its tokenizer is not the one of data.train" in text


def test_a_missing_data_set_is_one_problem(run_yaml: Path) -> None:
    [problem] = problems(run_yaml, "data.train=/nowhere", "model.vocab_size=null", check_data=True)
    assert problem.startswith("data.train=/nowhere is wrong because /nowhere is neither a data set nor")


def test_a_missing_training_set_says_nothing_of_the_vocabulary(tmp_path: Path) -> None:
    validation = str(data_set(tmp_path / "validation"))
    made = sections({"data.train": "nowhere", "data.validation": validation, "model.vocab_size": None})
    with pytest.raises(ConfigError, match="nowhere is neither a data set nor") as caught:
        build(made)
    assert not any("vocab_size" in problem for problem in caught.value.problems)
