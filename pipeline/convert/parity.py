"""The proof of an export: Hugging Face's own forward pass gives the logits of the training model.

Dims: B windows, S positions, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers

from pipeline.config.sample import denoising
from pipeline.config.schema import RunConfig
from pipeline.convert.form import form_of
from pipeline.convert.hugging_face import load_model
from pipeline.convert.special_ids import SpecialIds
from pipeline.data.token_stream import TokenStream
from pipeline.distributed import single_process
from pipeline.errors import CheckpointError, DataError
from pipeline.models.families import family_of, parameter_table, pipeline_layers
from pipeline.models.pipeline_layer import LayerStack
from pipeline.shards import find_shards

if TYPE_CHECKING:
    from pipeline.checkpoint.logical import LogicalCheckpoint

# Both compute in fp32 but may sum in another order, which gives 1e-5 (8 layers of width 512, measured). One weight in
# 20 million that is wrong by 1e-3 gives 3e-4 there; a wrong head order, norm or rotary base gives 1e-2 and more.
TOLERANCE = 1e-4
NUM_TOKENS = 2048  # enough for every position of most windows; both models' logits of them are held in memory


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the exported model's logits are from the training model's.

    Attributes:
        max_difference: largest absolute difference, both in fp32 with the weights as they were exported.
        tokens: what the models were given, in words.
    """

    max_difference: float
    tolerance: float
    num_tokens: int
    tokens: str


def prove(checkpoint: "LogicalCheckpoint", folder: Path, *, dtype: torch.dtype) -> Parity:
    """Compare the model in `folder`, exported with weights of `dtype`, with the training model of `checkpoint`.

    Both are run in fp32 on the CPU, one after the other, so one of them must fit memory.

    Raises:
        CheckpointError: the logits differ by more than TOLERANCE.
    """
    windows_BS, tokens = _windows(checkpoint)
    expected = training_logits(checkpoint, windows_BS, dtype=dtype)
    found = _exported_logits(checkpoint.config, folder, windows_BS)
    worst, place = _worst(expected, found)
    if not worst <= TOLERANCE:  # a NaN is no pass
        window, position, token = place
        raise CheckpointError(
            f"the exported model does not compute what {checkpoint.path} computes: logits differ by {worst:.3g} "
            f"(allowed {TOLERANCE:g}), worst at window {window}, position {position}, vocabulary id {token}, given "
            f"{tokens}. Nothing was exported: this is a defect of the exporter or a library; please report it."
        )
    return Parity(max_difference=worst, tolerance=TOLERANCE, num_tokens=windows_BS.numel(), tokens=tokens)


@torch.inference_mode()
def training_logits(
    checkpoint: "LogicalCheckpoint", windows_BS: torch.Tensor, *, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Logits of the unsplit training model in fp32, its weights rounded to `dtype`: [S, V] for each window.

    Those of a pair of segments are one more row, padded with zeros.
    """
    config = checkpoint.config
    table, family = parameter_table(config.model), family_of(config.model)
    with single_process():
        stack = LayerStack(pipeline_layers(config.model)).eval()
        for name, parameter in stack.named_parameters():
            row = table.row_of(name)
            parameter.copy_(row.split(checkpoint.read(row.name).to(dtype).float(), rank=0, size=1))
        logits = []
        for window_S in windows_BS:
            given = _inputs(config, window_S)
            inputs = tuple(given[name] for name in family.inputs if name in given)
            found = stack(inputs[0] if len(inputs) == 1 else inputs)
            words_SBV, *pairs = found if isinstance(found, tuple) else (found,)
            # The training model puts the sequence first and pads the vocabulary.
            logits.append(_rows(words_SBV[:, 0, : config.model.vocab_size], *pairs))
        return logits


@torch.inference_mode()
def _exported_logits(config: RunConfig, folder: Path, windows_BS: torch.Tensor) -> Iterator[torch.Tensor]:
    form = form_of(config.model)
    [class_name] = form.config(config.model, torch.float32, SpecialIds())["architectures"]
    model = load_model(folder, getattr(transformers, class_name))
    for window_S in windows_BS:
        found = model(**_inputs(config, window_S), **({} if config.model.family == "bert" else {"use_cache": False}))
        if "prediction_logits" in found:
            yield _rows(found.prediction_logits[0], found.seq_relationship_logits)
        else:
            yield _rows(found.logits[0])


def _inputs(config: RunConfig, window_S: torch.Tensor) -> dict[str, torch.Tensor]:
    """What both models are given of one window: an encoder sees padding and segments, too. Each of shape [1, S]."""
    ids = window_S[None]
    if config.model.family == "gpt":
        return {"input_ids": ids}
    positions = torch.arange(ids.shape[1])[None]
    mask = (positions < max(1, ids.shape[1] * 7 // 8)).long()
    if config.model.family == "bert":
        types = (positions >= ids.shape[1] // 2).long() % config.model.num_token_types
        return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids[:, : denoising(config).target_len]}


def _rows(words_SV: torch.Tensor, *pairs: torch.Tensor) -> torch.Tensor:
    """The logits of all positions, and those of the pair, [1, 2], in a row below: [S or S + 1, V]."""
    below = [torch.nn.functional.pad(pair, (0, words_SV.shape[1] - pair.shape[1])) for pair in pairs]
    return torch.cat([words_SV, *below]).clone()


def _worst(expected: list[torch.Tensor], found: Iterator[torch.Tensor]) -> tuple[float, tuple[int, int, int]]:
    """The largest difference, NaN above all, and its window, position and vocabulary id."""
    worst, place = -1.0, (0, 0, 0)
    for window, (expected_SV, found_SV) in enumerate(zip(expected, found, strict=True)):
        difference_SV = (expected_SV - found_SV).abs().nan_to_num(nan=torch.inf)
        position, token = divmod(int(difference_SV.argmax()), difference_SV.shape[1])
        if (largest := float(difference_SV[position, token])) > worst:
            worst, place = largest, (window, position, token)
    return worst, place


def _windows(checkpoint: "LogicalCheckpoint") -> tuple[torch.Tensor, str]:
    """Token ids, int64 [B, S], and where they are from: held-out data, or random ids where there is none."""
    model, folder = checkpoint.config.model, checkpoint.config.data.validation
    count = max(1, NUM_TOKENS // model.seq_len)
    reason = "data.validation is not set"
    if folder is not None:
        try:
            stream = TokenStream(find_shards(folder))
        except DataError:
            reason = f"data.validation={folder} cannot be read"
        else:
            if windows := min(count, len(stream) // model.seq_len):
                ids = stream.read(0, windows * model.seq_len).astype(np.int64)
                return torch.from_numpy(ids).view(windows, -1), f"the first tokens of data.validation={folder}"
            reason = f"data.validation={folder} is shorter than one sequence"
    generator = torch.Generator().manual_seed(checkpoint.config.run.seed)
    return torch.randint(
        model.vocab_size, (count, model.seq_len), generator=generator
    ), f"random token ids, as {reason}"
