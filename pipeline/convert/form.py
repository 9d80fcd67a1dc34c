"""A model as Hugging Face's class has it: how its parameters and its config are called there, by architecture."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from pipeline.config.architectures import ArchitectureName
from pipeline.config.schema import ModelConfig
from pipeline.convert import bert_form, gpt2_form, llama_form, t5_form
from pipeline.convert.special_ids import SpecialIds
from pipeline.models.parameters import ParameterSpec


@dataclass(frozen=True, kw_only=True)
class Form:
    """One class of transformers.

    Attributes:
        to_hugging_face: the tensors that one parameter holds there, by name; views where their order allows. It maps
            gradients as it maps weights.
        config: the content of `config.json`.
    """

    to_hugging_face: Callable[[ParameterSpec, torch.Tensor, ModelConfig], Iterator[tuple[str, torch.Tensor]]]
    config: Callable[[ModelConfig, torch.dtype, SpecialIds], dict[str, Any]]


LLAMA = Form(to_hugging_face=llama_form.to_hugging_face, config=llama_form.hugging_face_config)
GPT2 = Form(to_hugging_face=gpt2_form.to_hugging_face, config=gpt2_form.hugging_face_config)
BERT = Form(to_hugging_face=bert_form.to_hugging_face, config=bert_form.hugging_face_config)
T5 = Form(to_hugging_face=t5_form.to_hugging_face, config=t5_form.hugging_face_config)
FORMS: Mapping[ArchitectureName, Form] = MappingProxyType(
    {**dict.fromkeys(llama_form.CLASSES, LLAMA), "gpt2": GPT2, "bert": BERT, "t5": T5}
)


def form_of(model: ModelConfig) -> Form:
    """How `model` is called in transformers."""
    return FORMS[model.architecture]
