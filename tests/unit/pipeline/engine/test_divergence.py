"""What is said of numbers that are not finite."""

from typing import get_args

import pytest

from pipeline.config.architectures import ArchitectureName
from pipeline.config.load import build
from pipeline.engine.divergence import Diagnosis, Output
from pipeline.flops import layer_flops
from pipeline.models.families import parameter_table
from tests import small_models


def output(*, micro_batch: int = 0, stage: int = 0, order: int = 1, rank: int = 0, name: str = "a") -> Output:
    return Output(
        micro_batch=micro_batch, stage=stage, order=order, rank=rank, data_rank=0, name=name, host=f"node{rank}"
    )


def test_the_first_is_that_of_the_first_micro_batch_then_stage_then_module() -> None:
    found = [
        output(micro_batch=1, rank=0),
        output(stage=1, order=1, rank=2),
        output(order=9, rank=0),
        output(order=8, rank=1),
        output(order=8, rank=3),
    ]
    assert min(found).rank == 1


def test_the_first_output_is_named_with_its_place() -> None:
    found = Diagnosis(output=output(micro_batch=3, rank=5, name="layers.1.mlp"), weights={}, gradients={"b": [0]})
    said = "The first output that is not finite is that of layers.1.mlp on rank 5 (node5), in micro-batch 3."
    assert str(found) == said


def test_weights_are_listed_and_the_rest_counted() -> None:
    weights = {f"layers.{index}.w": [0, 1] for index in range(5)}
    found = str(Diagnosis(output=output(), weights=weights, gradients={}))
    assert found.endswith(
        " Weights are not finite themselves: layers.0.w on ranks 0, 1, layers.1.w on ranks 0, 1, layers.2.w on ranks "
        "0, 1 and 2 more."
    )


def test_without_an_output_the_last_layer_with_such_a_gradient_is_named() -> None:
    found = str(Diagnosis(output=None, weights={}, gradients={"layers.0.w": [0], "layers.1.w": [0, 2]}))
    assert found.endswith("it was the backward pass, first at the gradient of layers.1.w on ranks 0, 2.")


def test_nothing_may_be_found() -> None:
    found = str(Diagnosis(output=None, weights={}, gradients={}))
    assert found.startswith("Run again, every output of the forward pass is finite, and so is every gradient")


@pytest.mark.parametrize("architecture", get_args(ArchitectureName))
def test_layers_have_the_names_of_the_parameter_table(architecture: ArchitectureName) -> None:
    """Modules are named after the pipeline layers, and weights after the table: a person compares both."""
    objective = {"bert": "masked", "t5": "span"}.get(architecture, "causal")
    base = small_models.run_config().model_dump(exclude={"model", "objective"})
    shape = {"vocab_size": 512, "num_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "ffn_hidden_size": 48}
    model = {"architecture": architecture, "seq_len": 24, **shape}
    config = build(base | {"model": model, "objective": {"name": objective}}, check_data=False)
    names = [layer.name for layer in layer_flops(config)]
    for row in parameter_table(config.model):
        assert row.name == f"{names[row.layer]}.{row.local_name}"
