"""Going on from a checkpoint: finding the newest good one, refusing one of another run, and loading it."""

from pathlib import Path

import torch

from pipeline.checkpoint import files, rng
from pipeline.checkpoint.manifest import CheckpointManifest, DataRecord, find_checkpoints
from pipeline.config.load import resolved
from pipeline.config.schema import RunConfig
from pipeline.engine.engine import Engine
from pipeline.errors import CheckpointError
from pipeline.models.parameters import ParameterTable

# What a resumed run must share with the one that saved. The rest may change: length, batch, optimizer, schedule.
FIXED = {
    "run": ("seed",),
    "model": None,
    "objective": None,
    "data": ("packing", "reset_positions", "attend_within_documents"),
    "parallel": None,
    "precision": ("dtype",),
}
# Of the optimizer, which its saved state holds too.
SETTINGS = ("weight_decay", "betas", "eps")


def refuse_used(run_dir: Path) -> None:
    """Raise CheckpointError if `run_dir` holds checkpoints: those of a run that starts anew would mix with them."""
    if found := find_checkpoints(run_dir):
        raise CheckpointError(
            f"checkpoint.resume=never starts anew, but run.dir={run_dir} holds {found[0].name}. Give another run.dir, "
            "remove this one, or set checkpoint.resume=auto."
        )


def refuse_another_run(
    folder: Path, manifest: CheckpointManifest, config: RunConfig, table: ParameterTable, data: DataRecord
) -> None:
    """Raise CheckpointError, naming all that differs, unless `config` can go on from the checkpoint."""
    saved, wanted = manifest.config, resolved(config)
    differing = [
        f"{section}.{key}={wanted[section][key]!r}, but the checkpoint has {saved[section].get(key)!r}"
        for section, keys in FIXED.items()
        for key in keys or wanted[section]
        if not (section == "model" and key in config.model.made.unread)
        and wanted[section][key] != saved.get(section, {}).get(key)
    ]
    if manifest.parameters != table.describe() and not differing:
        differing.append("the parameters of the model have other names or shapes")
    if manifest.data.order != data.order:
        differing.append(_other_data(manifest, data))
    if differing:
        raise CheckpointError(
            f"{folder} is of another run: {'; '.join(differing)}. Restore these, or give another run.dir."
        )


def _other_data(manifest: CheckpointManifest, data: DataRecord) -> str:
    """What would make the samples so far other ones."""
    saved = manifest.data.sources
    changed = [name for name in saved if data.sources.get(name, "") not in ("", saved[name])]
    gone = [name for name, fingerprint in saved.items() if fingerprint not in data.sources.values()]
    if changed:
        return f"data.train: {', '.join(changed)} holds other tokens than the run began with"
    if gone:
        return f"data.train no longer names {', '.join(gone)}"
    return (
        f"weights, max_epochs or phases of data.train differ before sample {manifest.consumed_samples}, up to which "
        "the run has read (later ones may change)"
    )


def load(engine: Engine, folder: Path) -> None:
    """Give this rank's engine and random generators the state saved in `folder`; every rank calls this.

    The optimizer's settings stay those of the config: DeepSpeed would put the saved ones in their place.

    Raises:
        CheckpointError: it is of another optimizer, or lacks files.
    """
    optimizer = engine.deepspeed.optimizer
    names = set().union(*optimizer.param_groups)
    settings = [{name: group[name] for name in SETTINGS if name in group} for group in optimizer.param_groups]
    clip_grad = getattr(optimizer, "clip_grad", None)
    path, _ = engine.deepspeed.load_checkpoint(
        str(folder.parent), tag=folder.name, load_module_strict=True, load_lr_scheduler_states=False
    )
    if path is None:
        raise CheckpointError(f"{folder} lacks files that DeepSpeed needs. Resume from another checkpoint.")
    if missing := names.difference(*optimizer.param_groups):
        raise CheckpointError(
            f"{folder} is of another optimizer, which has no {', '.join(sorted(missing))}. Restore the one that "
            "parallel.deepspeed named, or give another run.dir."
        )
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    if clip_grad is not None:
        optimizer.clip_grad = clip_grad
    rng.restore(files.load(folder / rng.file_name(torch.distributed.get_rank())))
