"""The files of a run directory that say what is run, beside its checkpoints, logs and metrics."""

import json
from pathlib import Path
from typing import Any

from data_prep.atomic import replacing
from pipeline.config.load import to_yaml
from pipeline.config.schema import RunConfig


def describe_run(run_dir: Path, config: RunConfig, *, deepspeed: dict[str, Any], environment: dict[str, Any]) -> None:
    """Write `config.yaml` and `deepspeed.json`, both resolved, and `environment.json`."""
    contents = {
        "config.yaml": to_yaml(config),
        "deepspeed.json": json.dumps(deepspeed, indent=2) + "\n",
        "environment.json": json.dumps(environment, indent=2) + "\n",
    }
    for name, text in contents.items():
        with replacing(run_dir / name) as path:
            path.write_text(text, encoding="utf-8")
