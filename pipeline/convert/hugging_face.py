"""Opening a Hugging Face folder: from this disk alone, no pickle and no code out of the folder, and quietly."""

import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when transformers is first imported
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.errors import UserError

LOCAL_ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
# What transformers raises on a folder that is cut, malformed or of a kind that it does not know.
UNLOADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def load_causal_model(folder: Path, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The decoder in `folder`; see `load_model`."""
    return load_model(folder, transformers.AutoModelForCausalLM, dtype=dtype)


def load_model(folder: Path, kind: type[Any], *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The language model in `folder`, in evaluation mode, on the CPU.

    Args:
        kind: the class of transformers, or the automatic one, that loads it.

    Raises:
        UserError: there is no such folder, it holds no model, or its weights are not those that its config asks for.
    """
    _check_folder(folder)
    try:
        model, found = kind.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **LOCAL_ONLY
        )
    except UNLOADABLE as error:
        raise UserError(f"{folder} cannot be loaded as a language model: {_first_line(error)}") from error
    wrong = {kind: sorted(map(str, found[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        problems = "; ".join(
            f"{kind.replace('_', ' ')}: {', '.join(names[:5])}" for kind, names in wrong.items() if names
        )
        raise UserError(f"{folder}: the weights are not those of its config.json ({problems}). Export the model again.")
    return model.eval()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`.

    Raises:
        UserError: there is no such folder, or no tokenizer in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give one with a tokenizer in it.")
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, **LOCAL_ONLY)
    except UNLOADABLE as error:
        raise UserError(f"{folder} holds no tokenizer that transformers can load: {_first_line(error)}") from error


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a Hugging Face folder, such as `pretrain export` writes.")
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a Hugging Face folder: it has no config.json. "
            "Make one with `pretrain export CKPT --out DIR`."
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
