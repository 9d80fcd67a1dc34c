"""One model twice: as training has it, unsplit, and as transformers' class, with the same weights.

Dims: S sequence, B batch, V vocabulary.
"""

from collections.abc import Mapping

import torch
import transformers

from pipeline.config.schema import ModelConfig
from pipeline.convert.form import form_of
from pipeline.convert.special_ids import SpecialIds
from pipeline.models.families import parameter_table, pipeline_layers
from pipeline.models.parameters import initialize
from pipeline.models.pipeline_layer import LayerStack

NOISE = 0.1
# What padding each of three samples has before and behind its text.
PADDING = {"none": ((0, 0), (0, 0), (0, 0)), "right": ((0, 0), (0, 6), (0, 20)), "left": ((0, 0), (4, 0), (20, 0))}


def text_mask(padding: str, length: int) -> torch.Tensor:
    """1 where three samples of an encoder have text, 0 where they have padding; int64, [3, `length`]."""
    mask = torch.ones((3, length), dtype=torch.int64)
    for row, (before, behind) in enumerate(PADDING[padding]):
        mask[row, :before] = 0
        mask[row, length - behind :] = 0
    return mask


def ours(model: ModelConfig, *, seed: int = 5) -> LayerStack:
    """Training's model; noise on every parameter, so that no two norms, biases or heads are alike.

    `pipeline.distributed.single_process` must be entered.
    """
    stack = LayerStack(pipeline_layers(model))
    initialize(stack, parameter_table(model), seed=seed, tensor_rank=0, tensor_parallel_size=1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter += NOISE * torch.randn(parameter.shape, generator=generator)
    return stack


def theirs(model: ModelConfig, stack: LayerStack) -> transformers.PreTrainedModel:
    """Transformers' model with the weights of `stack`, in evaluation mode."""
    content = form_of(model).config(model, torch.float32, SpecialIds())
    config = transformers.AutoConfig.for_model(**content)
    built = getattr(transformers, content["architectures"][0])(config)
    if not model.tie_embeddings:
        _untie(built)
    found = built.load_state_dict(named(model, stack, of="weights"), strict=False)
    untied = set(found.missing_keys) - set(built.all_tied_weights_keys)
    assert not untied, untied
    assert not found.unexpected_keys, found.unexpected_keys
    return built.eval()


def _untie(built: transformers.PreTrainedModel) -> None:
    """Give the output layer a weight of its own where the class ties it whatever the config says, as T5's does.

    `from_pretrained` does so itself where the folder has both weights.
    """
    head = built.get_output_embeddings()
    if head.weight is built.get_input_embeddings().weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())


def named(model: ModelConfig, stack: LayerStack, *, of: str) -> dict[str, torch.Tensor]:
    """The `weights` or `gradients` of `stack` under transformers' names and in its shapes."""
    table, form = parameter_table(model), form_of(model)
    tensors = {}
    for name, parameter in stack.named_parameters():
        row = table.row_of(name)
        value = parameter.detach() if of == "weights" else parameter.grad
        assert value is not None, name
        tensors |= dict(form.to_hugging_face(row, row.join([value]), model))
    return tensors


def largest_gradient_difference(
    model: ModelConfig, stack: LayerStack, other: transformers.PreTrainedModel
) -> tuple[float, str]:
    """After a backward pass through both: the largest difference of any gradient, and the parameter that has it."""
    expected: Mapping[str, torch.Tensor | None] = {name: one.grad for name, one in other.named_parameters()}
    worst = (0.0, "")
    for name, gradient in named(model, stack, of="gradients").items():
        theirs_ = expected[name]
        assert theirs_ is not None, name
        worst = max(worst, (float((gradient - theirs_).abs().max()), name))
    return worst
