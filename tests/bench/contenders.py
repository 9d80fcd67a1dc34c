"""Those who take part in `bench_tokenize.py`: ours, Megatron-LM's two tools, datatrove, and an engine alone."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CLASSIC, FAST, DATATROVE = "preprocess_data.py", "preprocess_data_fast.py", "datatrove"
OURS, TWO_WORKERS, GZ, ZST, PARQUET = "ours", "ours, 2 workers", "ours, .gz", "ours, .zst", "ours, .parquet"
ENGINES = {"gpt2": ("fastokens", "gigatoken"), "mistral": ("fastokens", "gigatoken")}
ALONE = "{} alone"
UNITS_OF_TWO = 4  # so that two workers have equal shares of a file of any size, and both have to start
JSON_FOLDER = {"gpt2": "gpt2", "mistral": "mistral_json"}  # of those who take no tokenizer.model
DATATROVE_JOB = """
import sys
from pathlib import Path
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import MegatronDocumentTokenizer
path, out, tokenizer, eos = Path(sys.argv[1]), *sys.argv[2:]
reader = JsonlReader(str(path.parent), glob_pattern=path.name)
writer = MegatronDocumentTokenizer(out, tokenizer_name_or_path=tokenizer, eos_token=eos)
LocalPipelineExecutor([reader, writer], tasks=1, workers=1, logging_dir=f"{out}/logs").run()
"""

Command = Callable[[Path, Path], list[str]]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Something that makes ids out of a file; `command` is a function of the file and the folder for the result."""

    name: str
    command: Command
    suffix: str = ".jsonl"
    cores: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    prints_seconds: bool = False  # its own: wall and CPU


def ours(args: argparse.Namespace, tokenizer: str, name: str) -> Contender:
    workers = 2 if name == TWO_WORKERS else 1
    options = ["--tokenizer", str(args.folder / "tokenizers" / tokenizer), "--engine", args.engine, "--json"]
    tool = [sys.executable, "-m", "pipeline.cli", "data", "tokenize", "--workers", str(workers)]

    def units(path: Path) -> list[str]:
        return ["--unit-bytes", str(path.stat().st_size // UNITS_OF_TWO)] if workers > 1 else []

    suffix = {GZ: ".jsonl.gz", ZST: ".jsonl.zst", PARQUET: ".parquet"}.get(name, ".jsonl")
    return Contender(
        name=name,
        command=lambda path, out: [*tool, *options, *units(path), "--input", str(path), "--out", str(out / "set")],
        suffix=suffix,
        cores=workers,
    )


def megatron(args: argparse.Namespace, tokenizer: str, tool: str) -> Iterator[Contender]:
    if not (args.megatron and args.peers_python):
        return
    folder = args.folder / "tokenizers"
    if tool == CLASSIC and tokenizer == "mistral":
        options = ["--tokenizer-type", "GPTSentencePieceTokenizer"]
        options += ["--tokenizer-model", str(folder / "mistral" / "tokenizer.model")]
    else:
        options = [
            "--tokenizer-type",
            "HuggingFaceTokenizer",
            "--tokenizer-model",
            str(folder / JSON_FOLDER[tokenizer]),
        ]
    options += ["--append-eod", *(["--workers", "1"] if tool == CLASSIC else ["--use-gigatoken"])]
    # An installed megatron-core would be found before the checkout, which the tool adds to the end of the path.
    yield Contender(
        name=tool,
        command=lambda path, out: [
            *(args.peers_python, str(args.megatron / "tools" / tool), *options),
            *("--input", str(path), "--output-prefix", str(out / "set")),
        ],
        environment={"PYTHONPATH": str(args.megatron)},
    )


def datatrove(args: argparse.Namespace, tokenizer: str) -> Iterator[Contender]:
    if not args.peers_python or tokenizer != "gpt2":
        return
    arguments = [str(args.folder / "tokenizers" / "gpt2" / "tokenizer.json"), "<|endoftext|>"]
    yield Contender(
        name=DATATROVE,
        command=lambda path, out: [args.peers_python, "-c", DATATROVE_JOB, str(path), str(out), *arguments],
    )


def alone(args: argparse.Namespace, tokenizer: str, engine: str) -> Contender:
    definition = str(args.folder / "tokenizers" / JSON_FOLDER[tokenizer] / "tokenizer.json")
    tool = [sys.executable, "-m", "tests.bench.engine_rate", engine, definition]
    root = str(Path(__file__).resolve().parents[2])
    return Contender(
        name=ALONE.format(engine),
        command=lambda path, _: [*tool, str(path)],
        environment={"PYTHONPATH": root},
        prints_seconds=True,
    )
