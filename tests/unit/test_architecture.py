"""The import rules of this repository, as data. A red test here means that a layer was crossed.

To mend one, move the code to the layer that it belongs to. Change the tables only together with the design.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]

# From top to bottom. A unit imports from its own modules and from rows below its own.
LAYERS = (
    ("pipeline.cli",),
    ("pipeline.quickstart", "pipeline.preload"),
    (
        "pipeline.train",
        "pipeline.finetune",
        "pipeline.generate",
        "pipeline.evaluate",
        "pipeline.preview",
        "pipeline.validate",
    ),
    ("pipeline.launch", "pipeline.convert"),
    ("pipeline.checkpoint", "pipeline.monitor"),
    ("pipeline.engine",),
    ("pipeline.checkpoint.files",),  # how the engine reaches the disk; the rest of checkpoint drives the engine
    ("pipeline.checkpoint.manifest",),
    ("pipeline.data", "pipeline.optim"),
    ("pipeline.models",),
    ("pipeline.distributed", "pipeline.stop", "pipeline.started_rank"),
    ("pipeline.rendezvous",),
    ("pipeline.cpu",),
    ("pipeline.stages",),
    ("pipeline.topology", "pipeline.flops"),
    ("pipeline.config",),
    ("pipeline.objectives", "pipeline.shards"),
    ("pipeline.log",),
    ("pipeline.devices",),
    ("pipeline.errors",),
    # Data preparation, of which pipeline takes only what SHARED names.
    ("data_prep.cli",),
    ("data_prep.cli_data_set",),
    ("data_prep.data_sets", "data_prep.tokenizer.tokenizer_training"),
    ("data_prep.tokenizing",),
    ("data_prep.engine", "data_prep.text"),
    ("data_prep.tokenizer",),
    ("data_prep.writer", "data_prep.metadata", "data_prep.packing"),
    ("data_prep.manifest",),
    ("data_prep.format", "data_prep.ragged", "data_prep.records", "data_prep.accounting", "data_prep.checksum"),
    ("data_prep.atomic", "data_prep.progress", "data_prep.zstd", "data_prep.arguments"),
    ("data_prep.errors", "data_prep.processes"),
)
LEVEL = {unit: level for level, row in enumerate(LAYERS) for unit in row}

# These answer at once and run on machines without the training stack.
WITHOUT_TORCH = (
    "data_prep",
    "pipeline.config",
    "pipeline.topology",
    "pipeline.stages",
    "pipeline.flops",
    "pipeline.objectives",
    "pipeline.shards",
    "pipeline.data",
    "pipeline.log",
    "pipeline.devices",
    "pipeline.rendezvous",
    "pipeline.started_rank",
    "pipeline.errors",
)
TRAINING_STACK = frozenset({"torch", "deepspeed", "megatron", "transformers", "tensorboard"})

# Package -> the only units that import it.
ONLY_IN = {"deepspeed": ("pipeline.engine", "pipeline.checkpoint")}

# What pipeline takes from data_prep, and the units that take more.
SHARED = (
    *(f"data_prep.{module}" for module in ("atomic", "errors", "format", "manifest", "packing", "progress")),
    *("data_prep.text.readers", "data_prep.tokenizer.loading", "data_prep.tokenizer.tokenizers"),
)
ALSO_TAKES = {"pipeline.cli": ("data_prep.arguments", "data_prep.cli"), "pipeline.quickstart": ("data_prep",)}

# Modules whose imports at the top would slow `pretrain --help` down.
COMMAND_LINE = ("pipeline.cli", "data_prep.arguments", "data_prep.cli", "data_prep.cli_data_set")
LIGHT = frozenset(
    {"argparse", "collections", "importlib", "json", "os", "pathlib", "sys", "typing", "data_prep", "pipeline"}
)

FILES = sorted([*REPO.glob("pipeline/**/*.py"), *REPO.glob("data_prep/**/*.py")])


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


def within(name: str, *units: str) -> bool:
    """Whether dotted `name` is one of `units` or lies in one."""
    return any(name == unit or name.startswith(f"{unit}.") for unit in units)


def unit_of(name: str) -> str | None:
    """The smallest unit that `name` lies in."""
    return max((unit for unit in LEVEL if within(name, unit)), key=len, default=None)


def imported_names(node: ast.AST) -> list[str]:
    """The full dotted names that one statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return []


def violations(module: str, name: str) -> Iterator[str]:
    """Why `module` may not import `name`."""
    package, unit, other = name.split(".")[0], unit_of(module), unit_of(name)
    if name.startswith("."):
        yield "relative import; write the full name"
    if package in TRAINING_STACK and within(module, *WITHOUT_TORCH):
        yield f"{package} in a unit that must do without it"
    if package in ONLY_IN and not within(module, *ONLY_IN[package]):
        yield f"only {' and '.join(ONLY_IN[package])} may"
    if package == "pipeline" and within(module, "data_prep"):
        yield "data_prep stands alone"
    shared = SHARED + ALSO_TAKES.get(module, ())
    if package == "data_prep" and within(module, "pipeline") and not within(name, *shared):
        yield f"it takes only {', '.join(shared)}"
    if unit and other and unit != other and module.split(".")[0] == package and LEVEL[unit] >= LEVEL[other]:
        yield f"{other} is not below {unit}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_keep_the_rules(path: Path) -> None:
    module = module_name(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [name for node in ast.walk(tree) for name in imported_names(node)]
    wrong = [f"{module} imports {name}: {why}" for name in names for why in violations(module, name)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_module_has_a_layer(path: Path) -> None:
    module = module_name(path)
    assert module in ("pipeline", "data_prep") or unit_of(module), f"add {module} to LAYERS"


@pytest.mark.parametrize("module", COMMAND_LINE)
def test_command_line_imports_nothing_heavy_at_the_top(module: str) -> None:
    path = REPO / f"{module.replace('.', '/')}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    roots = {name.split(".")[0] for node in tree.body for name in imported_names(node)}
    assert roots <= LIGHT, f"{module} imports {sorted(roots - LIGHT)} at the top; import them in the command's function"


def test_package_files_are_empty() -> None:
    filled = [module_name(path) for path in FILES if path.name == "__init__.py" and path.read_bytes().strip()]
    assert not filled


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pipeline.config.schema", "torch"),
        ("pipeline.models.gpt", "deepspeed.pipe"),
        ("data_prep.writer", "pipeline.errors.DataError"),
        ("pipeline.data.loader", "data_prep.writer.Writer"),
        ("pipeline.topology", "pipeline.models.gpt"),
        ("pipeline.models.gpt", "pipeline.optim.adamw"),
        ("pipeline.engine", ".log"),
        ("pipeline.engine", "pipeline.checkpoint.save"),
        ("pipeline.engine", "pipeline.monitor.progress.Progress"),
        ("pipeline.checkpoint.files", "pipeline.checkpoint.load"),
        ("pipeline.cli", "data_prep.writer.ShardWriter"),
        ("data_prep.text.readers", "data_prep.tokenizing.job"),
        ("data_prep.manifest", "data_prep.writer"),
    ],
)
def test_rules_catch_what_they_are_for(module: str, name: str) -> None:
    assert list(violations(module, name))
