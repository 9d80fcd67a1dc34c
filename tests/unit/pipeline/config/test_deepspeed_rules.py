"""A user's DeepSpeed JSON: what is filled in, what is refused, and that every sentence names key, value and way out."""

import importlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.deepspeed import deepspeed_config, filled, owned_by
from pipeline.config.deepspeed_json import Json, get, put
from pipeline.config.deepspeed_keys import KNOWN_KEYS, ONLY_VALUES, UNUSABLE_KEYS
from pipeline.config.deepspeed_optimizers import OPTIMIZERS
from pipeline.config.deepspeed_rules import deepspeed_problems, optimizer_refusal
from pipeline.config.load import build, load
from pipeline.config.rules import ineffective_settings
from pipeline.config.schema import RunConfig
from pipeline.errors import ConfigError
from tests.unit.pipeline.config.sections import sections


def leaves(content: Json) -> Iterator[tuple[str, Any]]:
    """Key and value of all that is no section."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield key, value


Problems = Callable[..., list[str]]
BY_JSON = {"optimizer.name": "deepspeed"}


@pytest.fixture
def problems(tmp_path: Path) -> Problems:
    """The problems of a JSON, given as a dict or as text, beside a run config with some changes."""

    def find(content: Mapping[str, Any] | str | bytes, **changes: Any) -> list[str]:
        path = tmp_path / "ds.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return [str(found).replace(str(path), "ds.json") for found in deepspeed_problems(with_json(path, changes))]

    return find


def with_json(path: Path, changes: Mapping[str, Any]) -> RunConfig:
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return build(sections({"parallel.deepspeed": str(path), "run.device": "cpu", **dotted}), check_data=False)


@pytest.mark.parametrize(
    ("content", "changes", "expected"),
    [
        ({"train_batch_size": 64}, {}, "train_batch_size=64 contradicts batch.global_batch_size=8."),
        (
            {"train_micro_batch_size_per_gpu": 4},
            {},
            "train_micro_batch_size_per_gpu=4 contradicts batch.micro_batch_size=2.",
        ),
        (
            {"gradient_accumulation_steps": 2},
            {},
            "gradient_accumulation_steps=2 contradicts batch.global_batch_size=8 / (batch.micro_batch_size=2 x "
            "parallel.data_parallel_size=1)=4.",
        ),
        ({"gradient_clipping": 0.5}, {}, "gradient_clipping=0.5 contradicts optimizer.grad_clip=1.0."),
        ({"zero_optimization": {"stage": 3}}, {}, "zero_optimization.stage=3 contradicts parallel.zero_stage=1."),
        ({"zero_optimization": {"stage": True}}, {}, "zero_optimization.stage=true contradicts parallel.zero_stage=1."),
        ({"fp16": {"enabled": True}}, {}, "fp16.enabled=true contradicts precision.dtype=bf16."),
        ({"bf16": {"enabled": False}}, {}, "bf16.enabled=false contradicts precision.dtype=bf16."),
        (
            {"data_types": {"grad_accum_dtype": "bf16"}},
            {},
            'data_types.grad_accum_dtype="bf16" contradicts precision.grad_accum_dtype=fp32.',
        ),
        (
            {"communication_data_type": "fp16"},
            {},
            'communication_data_type="fp16" contradicts precision.grad_accum_dtype=fp32.',
        ),
        (
            {"fp16": {"initial_scale_power": 8}},
            {"precision__dtype": "fp16"},
            "fp16.initial_scale_power=8 contradicts precision.initial_loss_scale_power=16.",
        ),
        (
            {"optimizer": {"type": "AdamW", "params": {"lr": 0.1}}},
            {"optimizer__name": "deepspeed"},
            "optimizer.params.lr=0.1 contradicts optimizer.lr=0.001.",
        ),
        (
            {"optimizer": {"type": "Adam", "params": {"betas": [0.9, 0.99]}}},
            {"optimizer__name": "deepspeed"},
            "optimizer.params.betas=[0.9, 0.99] contradicts optimizer.beta1=0.9 and optimizer.beta2=0.95.",
        ),
        (
            {"optimizer": {"type": "AdamW", "params": {"eps": 1e-6, "weight_decay": "auto"}}},
            {"optimizer__name": "deepspeed"},
            "optimizer.params.eps=1e-06 contradicts optimizer.epsilon=1e-08.",
        ),
    ],
)
def test_a_contradiction_names_both_sides(
    content: Mapping[str, Any], changes: Mapping[str, Any], expected: str, problems: Problems
) -> None:
    [found] = problems(content, **changes)
    assert found == f'ds.json: {expected} Write "auto", or make them equal.'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"train_batch_sise": 8}, "train_batch_sise=8 is wrong because DeepSpeed has no such key; did you mean train_"),
        ({"stage": 1}, "did you mean zero_optimization.stage?"),
        ({"reduce_bucket_size": 1}, "did you mean zero_optimization.reduce_bucket_size?"),
        ({"zero_optimization": {"offload_optimiser": {"device": "cpu"}}}, "did you mean offload_optimizer?"),
        ({"zero_optimization": {"offload_optimizer": {"devise": "cpu"}}}, "did you mean device?"),
        ({"fp16": {"loss_scale_windows": 10}}, "did you mean loss_scale_window?"),
        ({"qqq": {}}, "leave it out, DeepSpeed would read past it."),
        (
            {"zero_optimization": True},
            'zero_optimization=true is wrong because it is a section; write {...}, or "auto"',
        ),
        ({"optimizer": "AdamW"}, 'optimizer="AdamW" is wrong because it is a section'),
        ({"scheduler": {"type": "WarmupLR"}}, "schedule of the run config is the learning rate's. Leave it out."),
        ({"activation_checkpointing": {}}, "parallel.recompute of the run config"),
        ({"bfloat16": {"enabled": True}}, "it is the old name of bf16"),
        ({"curriculum_learning": {"enabled": True}}, "DeepSpeed 0.19 no longer has it"),
        ({"gradient_allreduce_op": "sum"}, 'the loss is the mean over the global batch. Write "mean", or "auto"'),
        ({"pipeline": {"pipe_partitioned": True}}, 'Write false, or "auto"'),
        ({"bf16": {"bf16_master_weights_and_grads": True}}, "master weights and the optimizer's state are fp32 here"),
        ({"zero_optimization": {"offload_optimizer": {"device": "nvme"}}}, 'Write "none" or "cpu", or "auto"'),
        ({"data_types": {"param_dtype": "fp32"}}, "contradicts precision.dtype=bf16. Leave it out."),
        ({"optimizer": {"type": "AdamW"}}, "optimizer=AdamW is set, but optimizer.name=adamw of the run config builds"),
        (
            {"zero_optimization": {"offload_param": {"device": "cpu"}}},
            'offload_param.device="cpu" cannot be used with parallel.zero_stage=1: DeepSpeed moves it from ZeRO 3 on',
        ),
    ],
)
def test_what_cannot_be_used_is_named(content: Mapping[str, Any], expected: str, problems: Problems) -> None:
    [found] = problems(content)
    assert expected in found
    assert found.startswith("ds.json: ")


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        (None, {}, "optimizer.type is missing, and optimizer.name=deepspeed of the run config takes"),
        (3, {}, "optimizer.type is missing"),
        (
            "AdanW",
            {},
            "optimizer.type=AdanW is wrong because neither DeepSpeed nor torch.optim has it; did you mean adamw",
        ),
        ("OneBitAdam", {}, "optimizer.type=OneBitAdam cannot be used: DeepSpeed 0.19 no longer has it"),
        ("LBFGS", {}, "it computes the loss several times a step"),
        ("Lion", {}, "cannot be used with run.device=cpu: DeepSpeed has it for CUDA alone"),
        ("Lamb", {"run__device": "cuda"}, "cannot be used with parallel.zero_stage=1: it looks at whole matrices"),
        ("Adafactor", {"precision__dtype": "fp32"}, "ZeRO cuts them. Set zero_stage=0."),
        ("Adagrad", {}, "norms would decay like matrices. Set zero_stage=0 and dtype=fp32."),
        ("Muon", {}, "DeepSpeed's optimizer for these has no place for it. Set zero_stage=2."),
        ("Muon", {"parallel__pipeline_parallel_size": 2}, "ranks wait for each other for ever"),
        (
            "Muon",
            {"parallel__zero_stage": 3},
            'Write "zero_optimization": {"reduce_scatter": false}, or set zero_stage=2',
        ),
        ("Muon", {"parallel__tensor_parallel_size": 2}, "of which each rank holds a part. Set tensor_parallel_size=1."),
        ("SGD", {}, 'has not tried with ZeRO (parallel.zero_stage=1). Write "zero_allow_untested_optimizer": true'),
    ],
)
def test_optimizers_that_cannot_run_are_refused(
    kind: object, changes: Mapping[str, Any], expected: str, problems: Problems
) -> None:
    [found] = problems({"optimizer": {"type": kind}} if kind else {}, optimizer__name="deepspeed", **changes)
    assert expected in found


@pytest.mark.parametrize(
    ("content", "changes"),
    [
        ({"optimizer": {"type": "adamw"}}, {}),
        ({"optimizer": {"type": "SGD"}, "zero_allow_untested_optimizer": True}, {}),
        ({"optimizer": {"type": "SGD"}}, {"parallel__zero_stage": 0, "precision__dtype": "fp32"}),
        ({"optimizer": {"type": "Adagrad"}}, {"parallel__zero_stage": 0, "precision__dtype": "fp32"}),
        ({"optimizer": {"type": "Lion"}}, {"run__device": "cuda"}),
        ({"optimizer": {"type": "Muon"}}, {"parallel__zero_stage": 2}),
        ({"optimizer": {"type": "Muon"}, "zero_optimization": {"reduce_scatter": False}}, {"parallel__zero_stage": 3}),
    ],
)
def test_optimizers_that_can_run_are_taken(
    content: Mapping[str, Any], changes: Mapping[str, Any], problems: Problems
) -> None:
    assert not problems(content, optimizer__name="deepspeed", **changes)


def test_settings_that_the_optimizer_does_not_have_are_named(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"optimizer": {"type": "SGD"}, "zero_allow_untested_optimizer": True}))
    changes = {**BY_JSON, "optimizer.beta2": 0.99, "optimizer.epsilon": 1e-6, "optimizer.weight_decay": 0.2}
    assert ineffective_settings(with_json(path, changes)) == [
        "optimizer.beta2=0.99 has no effect because SGD has no betas.",
        "optimizer.epsilon=1e-06 has no effect because SGD has no eps.",
    ]
    path.unlink()
    assert not ineffective_settings(with_json(path, changes))


@pytest.mark.parametrize("stage", [2, 3])
def test_the_files_for_offload_fit_their_stage(stage: int) -> None:
    path = Path(__file__).parents[4] / f"ds_configs/zero{stage}_offload.json"
    config = with_json(path, {"parallel.zero_stage": stage})
    assert not deepspeed_problems(config)
    made = deepspeed_config(config)
    assert made["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert made["zero_force_ds_cpu_optimizer"] is False
    found = deepspeed_problems(with_json(path, {"parallel.zero_stage": 1}))
    assert f"zero_optimization.stage={stage} contradicts parallel.zero_stage=1" in str(found[0])


def test_every_problem_comes_at_once(problems: Problems) -> None:
    found = problems({"train_batch_size": 1, "gradient_clipping": 2, "zero_optimization": {"stage": 0}})
    assert len(found) == 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{\n  "bf16": "auto",\n  "fp16": auto\n}', "ds.json, line 3: this is not JSON: Expecting value."),
        ('{"bf16": "auto",}', "ds.json, line 1: this is not JSON"),
        ("[1]", "ds.json holds no JSON object"),
        ('{"bf16": 1, "bf16": 2}', "'bf16' comes twice; keep one of them"),
        ('{"gradient_clipping": NaN}', "NaN is no number"),
        (b"\xff\xfe", "is not UTF-8 text"),
        ("", "ds.json, line 1: this is not JSON"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_file_that_is_no_json_is_named_with_its_line(content: str | bytes, expected: str, problems: Problems) -> None:
    [found] = problems(content)
    assert expected in found


def test_it_is_checked_when_a_run_config_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(json.dumps(sections({"parallel.deepspeed": str(tmp_path / "none.json")})))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "run.yaml")
    assert any("none.json cannot be read: No such file or directory" in found for found in caught.value.problems)
    load(tmp_path / "run.yaml", check_data=False)  # a checkpoint's config is read where the file may be gone


def test_nothing_is_compared_with_a_value_that_is_wrong_itself(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"train_batch_size": 5}')
    config = with_json(tmp_path / "ds.json", {})
    assert deepspeed_problems(config)
    assert not deepspeed_problems(config, frozenset({"batch.global_batch_size"}))


SOME_KEYS = [*sorted(KNOWN_KEYS[""]), "stage", "enabled", "type", "params", "device", "lr", "nonsense"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 20) | st.sampled_from(["auto", "cpu", "AdamW", "fp32", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(SOME_KEYS), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(SOME_KEYS), json_values, max_size=6), st.sampled_from(["adamw", "deepspeed"]))
def test_any_json_is_refused_in_words_or_filled_in(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    config = with_json(path, {"optimizer.name": name})
    if deepspeed_problems(config):
        return
    made = deepspeed_config(config)
    assert all(value != "auto" for _, value in leaves(made))
    for owned in owned_by(config, content, "cpu"):
        if owned.run:
            assert get(made, owned.key) == owned.value


def test_what_is_left_out_is_filled_in_like_auto(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text("{}")
    config = with_json(path, {})
    autos: dict[str, Any] = {}
    for owned in owned_by(config, {}, "cpu"):
        put(autos, owned.key, "auto")
    assert filled({}, config) == filled(autos, config) == deepspeed_config(config)


def test_what_deepspeed_owns_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    zero = {"reduce_bucket_size": 7, "overlap_comm": True, "sub_group_size": "auto"}
    fp16 = {"loss_scale": 128.0, "hysteresis": 3}
    path.write_text(json.dumps({"zero_optimization": zero, "fp16": fp16, "steps_per_print": 5}))
    config = with_json(path, {"precision.dtype": "fp16"})
    assert not deepspeed_problems(config)
    made = deepspeed_config(config)
    assert made["zero_optimization"] == {"reduce_bucket_size": 7, "overlap_comm": True, "stage": 1}
    assert made["steps_per_print"] == 5
    assert (made["fp16"]["loss_scale"], made["fp16"]["hysteresis"]) == (128.0, 3)


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_the_optimizer_of_the_json_has_the_settings_of_the_run(tmp_path: Path, device_type: str) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"optimizer": {"type": "AdamW", "params": {"lr": "auto"}}}))
    config = with_json(path, {**BY_JSON, "optimizer.epsilon": 1e-6})
    params = deepspeed_config(config, device_type=device_type)["optimizer"]["params"]
    compiled_at_first_use = device_type == "cuda"
    assert params == {
        "lr": 1e-3,
        "weight_decay": 0.1,
        "betas": [0.9, 0.95],
        "eps": 1e-6,
        "torch_adam": not compiled_at_first_use,
    }


def test_an_optimizer_is_refused_on_the_device_that_the_ranks_found(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    content = {"optimizer": {"type": "Lion"}}
    path.write_text(json.dumps(content))
    config = with_json(path, {**BY_JSON, "run.device": "auto"})
    assert not deepspeed_problems(config)
    assert optimizer_refusal(config, content, "cuda") is None
    assert "run.device=cpu" in (optimizer_refusal(config, content, "cpu") or "")


def usable_torch_optimizers() -> list[str]:
    others = {"muon", "lamb", "lion"}  # DeepSpeed's own
    return sorted(name for name, row in OPTIMIZERS.items() if not row.refused and name not in others)


@pytest.mark.parametrize("name", usable_torch_optimizers())
def test_the_table_says_what_the_optimizers_of_torch_take(name: str) -> None:
    class_name = {"adam": "Adam", "adamw": "AdamW", "adagrad": "Adagrad"}.get(name, name)
    parameters = inspect.signature(getattr(torch.optim, class_name)).parameters
    takes = {key for key in ("betas", "eps") if key in parameters and name != "Adafactor"}  # whose eps is a pair
    assert OPTIMIZERS[name].takes == takes
    assert {"lr", "weight_decay"} <= parameters.keys()


def test_no_optimizer_of_torch_or_deepspeed_is_forgotten() -> None:
    from deepspeed.runtime.config import DEEPSPEED_OPTIMIZERS

    of_torch = {name for name, found in vars(torch.optim).items() if inspect.isclass(found)} - {"Optimizer"}
    assert {name.lower() for name in OPTIMIZERS} == {name.lower() for name in of_torch} | set(DEEPSPEED_OPTIMIZERS)
    assert {name for name in OPTIMIZERS if name.islower()} == set(DEEPSPEED_OPTIMIZERS)


@pytest.mark.parametrize(
    ("section", "place"),
    [
        ("bf16", "runtime.precision_config.DeepSpeedBF16Config"),
        ("fp16", "runtime.precision_config.DeepSpeedFP16Config"),
        ("zero_optimization", "runtime.zero.config.DeepSpeedZeroConfig"),
        (
            "zero_optimization.offload_optimizer",
            "runtime.zero.offload_config.DeepSpeedZeroOffloadOptimizerConfig",
        ),
        ("zero_optimization.offload_param", "runtime.zero.offload_config.DeepSpeedZeroOffloadParamConfig"),
    ],
)
def test_the_keys_are_those_of_deepspeed(section: str, place: str) -> None:
    module, _, name = place.rpartition(".")
    fields = getattr(importlib.import_module(f"deepspeed.{module}"), name).model_fields
    current = {
        field.alias or name for name, field in fields.items() if not (field.json_schema_extra or {}).get("deprecated")
    }
    assert KNOWN_KEYS[section] == current


def test_the_keys_at_the_top_are_those_of_deepspeed() -> None:
    """It has no list of them; each is a word of its source."""
    deepspeed = Path(str(importlib.import_module("deepspeed").__file__)).parent
    files = [*deepspeed.glob("runtime/**/*.py"), *deepspeed.glob("[cdmp]*/*.py"), deepspeed / "autotuning/constants.py"]
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    unknown = [key for key in KNOWN_KEYS[""] if f'"{key}"' not in source and f"'{key}'" not in source]
    assert not unknown
    assert all(
        key in KNOWN_KEYS[""] or "no longer" in why or "old name" in why
        for key, why in UNUSABLE_KEYS.items()
        if "." not in key
    )
    assert not ONLY_VALUES.keys() & UNUSABLE_KEYS.keys()
