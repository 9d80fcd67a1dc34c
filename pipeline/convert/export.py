"""`pretrain export`: a checkpoint of any layout to one Hugging Face folder, proven before it gets its name."""

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from data_prep.atomic import creating_folder, refuse_occupied
from data_prep.progress import Progress, progress
from pipeline.config.schema import Dtype, ModelConfig
from pipeline.convert.form import form_of
from pipeline.convert.model_card import model_card
from pipeline.convert.parity import Parity, prove
from pipeline.convert.safetensors_writer import NamedPieces, num_bytes, save_model
from pipeline.convert.special_ids import SpecialIds
from pipeline.convert.tokenizer_files import copy_tokenizer, find_tokenizer, special_ids
from pipeline.errors import CheckpointError
from pipeline.models.families import parameter_table
from pipeline.models.parameters import ParameterSpec

if TYPE_CHECKING:
    from pipeline.checkpoint.logical import LogicalCheckpoint

REPORT_NAME = "export.json"
PIECE_ELEMENTS = 2**24  # rounded and written at once, so that rounding does not need a second copy of a large matrix
TORCH_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported: the content of `export.json`, and where it lies.

    Attributes:
        files: sha256 of each file but `export.json`, in hex.
        parity: None if the proof was not asked for.
    """

    out: str
    source: str
    step: int
    dtype: Dtype
    num_parameters: int
    files: dict[str, str]
    parity: Parity | None


def export(
    checkpoint: "LogicalCheckpoint",
    out: Path,
    *,
    dtype: Dtype | None = None,
    tokenizer: Path | None = None,
    verify: bool = True,
) -> ExportReport:
    """Write the model of `checkpoint`, its config and its tokenizer to the new folder `out`, whole or not at all.

    Args:
        dtype: of the weights; None takes `precision.dtype`: the weights that training's forward pass computed with.
        tokenizer: its folder; None takes the one that the training data's manifest names.
        verify: compare the logits of what was written, as transformers computes them, with the training model's.

    Raises:
        DataError: `out` is occupied, the tokenizer is missing or another one, or the disk is full.
        CheckpointError: a parameter is missing, unknown or not finite, or the logits differ.
    """
    config = checkpoint.config
    dtype = dtype or config.precision.dtype
    torch_dtype = TORCH_DTYPES[dtype]
    refuse_occupied(out)
    found = find_tokenizer(config, tokenizer)
    _check_table(checkpoint)
    with creating_folder(out) as temporary:
        copy_tokenizer(found, temporary)
        _write_configs(temporary, config.model, torch_dtype, special_ids(found))
        _write_weights(checkpoint, temporary, torch_dtype)
        parity = prove(checkpoint, temporary, dtype=torch_dtype) if verify else None
        card = model_card(checkpoint, name=out.name, dtype=dtype, parity=parity)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        report = ExportReport(
            out=str(out),
            source=str(checkpoint.path),
            step=checkpoint.step,
            dtype=dtype,
            num_parameters=checkpoint.table.num_parameters,
            files={path.name: _sha256(path) for path in sorted(temporary.iterdir())},
            parity=parity,
        )
        _write_json(temporary / REPORT_NAME, {key: value for key, value in asdict(report).items() if key != "out"})
    return report


def _check_table(checkpoint: "LogicalCheckpoint") -> None:
    expected = parameter_table(checkpoint.config.model).describe()
    found = checkpoint.table.describe()
    wrong = {
        "missing": sorted(expected.keys() - found.keys()),
        "unknown": sorted(found.keys() - expected.keys()),
        "of another shape": sorted(name for name in expected.keys() & found if expected[name] != found[name]),
    }
    if any(wrong.values()):
        problems = "; ".join(f"{kind}: {', '.join(names[:5])}" for kind, names in wrong.items() if names)
        raise CheckpointError(
            f"{checkpoint.path} is not a checkpoint of the model that its config describes ({problems}). "
            "Export another checkpoint of the run."
        )


def _write_configs(folder: Path, model: ModelConfig, dtype: torch.dtype, ids: SpecialIds) -> None:
    content = form_of(model).config(model, dtype, ids)
    _write_json(folder / "config.json", content)
    start = {key: content[key] for key in ("decoder_start_token_id",) if key in content}
    _write_json(folder / "generation_config.json", ids.named() | start)


def _write_weights(checkpoint: "LogicalCheckpoint", folder: Path, dtype: torch.dtype) -> None:
    model = checkpoint.config.model
    shapes = {
        name: tuple(tensor.shape)
        for row in checkpoint.table
        for name, tensor in form_of(model).to_hugging_face(row, torch.empty(row.shape, device="meta"), model)
    }
    total = sum(num_bytes(shape, dtype) for shape in shapes.values())
    with progress("export", total=total) as shown:
        save_model(folder, shapes, _tensors(checkpoint, dtype, shown), dtype=dtype)


def _tensors(checkpoint: "LogicalCheckpoint", dtype: torch.dtype, shown: Progress) -> Iterator[NamedPieces]:
    model = checkpoint.config.model
    for row in checkpoint.table:
        full = checkpoint.read(row.name)
        if full.shape != row.shape:
            raise CheckpointError(f"{checkpoint.path}: {row.name} has shape {tuple(full.shape)}, not {row.shape}.")
        for name, tensor in form_of(model).to_hugging_face(row, full, model):
            yield name, _rounded(tensor, row, dtype)
            shown.update(num_bytes(tuple(tensor.shape), dtype))


def _rounded(tensor: torch.Tensor, row: ParameterSpec, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """`tensor` as `dtype`, in pieces along dim 0."""
    row_elements = tensor.numel() // tensor.shape[0]
    for piece in tensor.split(max(1, PIECE_ELEMENTS // row_elements)):
        if not piece.isfinite().all():
            raise CheckpointError(
                f"{row.name} holds values that are not finite: the run has diverged. Export an earlier checkpoint."
            )
        rounded = piece.to(dtype)
        if not rounded.isfinite().all():
            raise CheckpointError(
                f"{row.name} holds {piece.abs().max():.3g}, above the largest {str(dtype).removeprefix('torch.')} "
                f"({torch.finfo(dtype).max:.5g}). Export with --dtype bf16 or fp32."
            )
        yield rounded


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def command(args: argparse.Namespace) -> int:
    """`pretrain export`: reads `checkpoint out dtype tokenizer verify json` of `args`."""
    from pipeline.checkpoint.logical import open_checkpoint

    report = export(
        open_checkpoint(Path(args.checkpoint)),
        Path(args.out),
        dtype=args.dtype,
        tokenizer=Path(args.tokenizer) if args.tokenizer else None,
        verify=args.verify,
    )
    print(json.dumps(asdict(report), indent=2) if args.json else _summary(report))
    return 0


def _summary(report: ExportReport) -> str:
    lines = [
        f"{report.out}: {report.num_parameters:,} parameters in {report.dtype}, step {report.step} of {report.source}"
    ]
    if report.parity is None:
        lines.append("not verified (--no-verify)")
    else:
        parity = report.parity
        lines.append(
            f"transformers computes the training model's logits: max |difference| {parity.max_difference:.2e} "
            f"(allowed {parity.tolerance:g}) over {parity.num_tokens:,} tokens, {parity.tokens}"
        )
    return "\n".join(lines)
