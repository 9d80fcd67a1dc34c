"""`pretrain validate`: every problem of a run config at once, or what the run will be."""

import argparse
import json
import sys
from typing import Any

from pipeline.config.load import load
from pipeline.config.rules import ineffective_settings, slow_settings
from pipeline.config.schema import RunConfig
from pipeline.data.run_data import RunData, open_run_data
from pipeline.errors import ConfigError, DataError
from pipeline.flops import training_flops
from pipeline.stages import stages


def command(args: argparse.Namespace) -> int:
    """`pretrain validate`: reads `config overrides json` of `args`.

    Raises:
        ConfigError: with all problems, unless they are asked for as JSON.
    """
    try:
        config = load(args.config, args.overrides)
        warnings = [*ineffective_settings(config), *slow_settings(config)]
        found = summary(config, open_run_data(config))
    except (ConfigError, DataError) as error:
        if not args.json:
            raise
        problems = error.problems if isinstance(error, ConfigError) else [str(error)]
        print(json.dumps({"valid": False, "problems": problems}, indent=2))
        return 1
    if args.json:
        print(json.dumps({"valid": True, "warnings": warnings} | found, indent=2))
        return 0
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{args.config} is valid.")
    sources, cut = found.pop("sources"), found.pop("stages")
    for name, value in found.items():
        print(f"  {name.replace('_', ' '):28} {value:,}")
    for number, stage in enumerate(cut if len(cut) > 1 else []):
        print(f"  stage {number}: {stage['layers']}, {stage['share']:.1%} of the operations")
    for name, figures in sources.items():
        shown = ", ".join(f"{what.replace('_', ' ')} {value:,}" for what, value in figures.items())
        print(f"  {name}: {shown}")
    return 0


def summary(config: RunConfig, data: RunData) -> dict[str, Any]:
    """The derived numbers of a run."""
    return {
        "world_size": config.parallel.world_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "tokens_per_step": config.tokens_per_step,
        "total_tokens": config.num_samples * config.model.seq_len,
        "model_flops_per_step": config.batch.global_batch_size * training_flops(config),
        "stages": [{"layers": stage.layers, "share": round(stage.share, 4)} for stage in stages(config)],
        "sources": _sources(data, config.num_samples),
    }


def _sources(data: RunData, num_samples: int) -> dict[str, dict[str, Any]]:
    """How large each source is, its share at the beginning, and how much of it the run reads."""
    shares, read, epochs = data.train.blend.shares(0), data.tokens_read(num_samples), data.epochs_read(num_samples)
    return {
        name: {
            "tokens": shards.num_tokens,
            "share": round(share, 6),
            "tokens_read": read[name],
            "epochs": round(epochs[name], 3),
        }
        for (name, shards), share in zip(zip(read, data.sources, strict=True), shares, strict=True)
    }
