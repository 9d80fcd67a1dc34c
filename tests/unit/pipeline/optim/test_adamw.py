"""The optimizer's groups, and its update against the formula."""

import pytest
import torch

from pipeline.models.families import parameter_table
from pipeline.models.parameters import ParameterTable
from pipeline.optim import adamw
from pipeline.optim.groups import parameter_groups
from tests.small_models import run_config

CONFIG = run_config()


class Part(torch.nn.Module):
    """A part of a model: the parameters of these names, in small."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            layer, _, rest = name.partition(".")
            if layer not in self._modules:
                self.add_module(layer, torch.nn.Module())
            owner = self.get_submodule(layer)
            *path, last = rest.split(".")
            for piece in path:
                if piece not in owner._modules:
                    owner.add_module(piece, torch.nn.Module())
                owner = owner.get_submodule(piece)
            owner.register_parameter(last, torch.nn.Parameter(torch.tensor([1.0, -2.0])))


TABLE: ParameterTable = parameter_table(CONFIG.model)


def build(part: Part) -> torch.optim.AdamW:
    settings = CONFIG.optimizer
    return adamw.build(parameter_groups(part, TABLE, weight_decay=settings.weight_decay), settings)


def test_matrices_decay_and_norms_do_not() -> None:
    part = Part(*(row.module_name for row in TABLE))
    names = {parameter: TABLE.row_of(name).name for name, parameter in part.named_parameters()}
    groups = build(part).param_groups
    decaying, others = ({names[parameter] for parameter in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [CONFIG.optimizer.weight_decay, 0.0]
    assert others == {name for name in names.values() if "norm" in name}
    assert decaying | others == set(names.values())


def test_a_stage_without_one_kind_has_one_group() -> None:
    [group] = build(Part("3.norm.weight")).param_groups
    assert group["weight_decay"] == 0.0


def test_first_update_is_that_of_the_formula() -> None:
    part = Part("4.output_layer.weight")
    optimizer = build(part)
    [parameter] = part.parameters()
    parameter.grad = torch.tensor([0.5, -0.25])
    optimizer.step()
    lr, decay = CONFIG.optimizer.lr, CONFIG.optimizer.weight_decay
    # With both moments corrected for their start the first step is lr in the direction of the gradient's sign.
    expected = [1.0 * (1 - lr * decay) - lr, -2.0 * (1 - lr * decay) + lr]
    assert parameter.tolist() == pytest.approx(expected, rel=1e-6)
