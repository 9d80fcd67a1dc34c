"""`pretrain validate`: every problem of a run config at once, or what the run will be."""

import argparse
import json
import sys
from typing import Any

from pipeline.config.load import load
from pipeline.config.rules import ineffective_settings
from pipeline.config.schema import RunConfig
from pipeline.errors import ConfigError


def command(args: argparse.Namespace) -> int:
    """`pretrain validate`: reads `config overrides json` of `args`.

    Raises:
        ConfigError: with all problems, unless they are asked for as JSON.
    """
    try:
        config = load(args.config, args.overrides)
    except ConfigError as error:
        if not args.json:
            raise
        print(json.dumps({"valid": False, "problems": error.problems}, indent=2))
        return 1
    warnings = ineffective_settings(config)
    if args.json:
        print(json.dumps({"valid": True, "warnings": warnings} | summary(config), indent=2))
        return 0
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{args.config} is valid.")
    for name, value in summary(config).items():
        print(f"  {name.replace('_', ' '):28} {value:,}")
    return 0


def summary(config: RunConfig) -> dict[str, Any]:
    """The derived numbers of a run."""
    return {
        "world_size": config.parallel.world_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "tokens_per_step": config.tokens_per_step,
        "total_tokens": config.tokens_per_step * config.run.steps,
    }
