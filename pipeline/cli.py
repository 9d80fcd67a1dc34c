"""The command `pretrain`: its arguments, and what becomes of errors.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from data_prep.arguments import whole_number
from data_prep.cli import add_commands as add_data_commands
from pipeline import log
from pipeline.errors import Interrupted, UserError

EXIT_WRONG_INPUT = 1
EXIT_INTERRUPTED_AFTER_SAVE = 75
EXIT_KEYBOARD = 130  # as shells report SIGINT
EXIT_BROKEN_PIPE = 141  # as shells report SIGPIPE

Subparsers = Any  # argparse._SubParsersAction, which is not public

_positive = whole_number(1, 2**31 - 1)
_from_zero = whole_number(0, 2**62)
_seed = whole_number(0, 2**32 - 1)  # what NumPy takes


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments; those of the process when None.

    Returns:
        The exit code: 0 done, 1 the input is wrong, 75 interrupted after a clean save.

    Raises:
        SystemExit: 0 after help or version, 2 on wrong usage.
    """
    args = _parse(argv)
    log.quieten_imports()
    # Read when torch is imported: threads that spin while they wait cost 2.6 times the time on cores that others use.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except UserError as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except Interrupted as interrupted:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        return EXIT_INTERRUPTED_AFTER_SAVE
    except KeyboardInterrupt:
        return EXIT_KEYBOARD
    except BrokenPipeError:
        # The reader is gone; without this the interpreter complains once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    # argparse takes a list of positionals from one place only; overrides may also follow an option.
    if rest and hasattr(args, "overrides") and all("=" in word and not word.startswith("-") for word in rest):
        args.overrides += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, a function of the arguments to an exit code."""
    parser = argparse.ArgumentParser(
        prog="pretrain", description="From raw text to a pre-trained Transformer that is ready to fine-tune."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument("--debug", action="store_true", help="show the traceback of errors in the input too")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_quickstart(commands)
    _add_preview(add_data_commands(commands))
    for add in (_add_validate, _add_train, _add_export, _add_generate, _add_finetune, _add_evaluate):
        add(commands)
    return parser


class _Version(argparse.Action):
    """`--version`, which looks the version up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from importlib import metadata

        print(f"pretrain {metadata.version('pretrain-pipeline')}")
        parser.exit()


def _command(commands: Subparsers, name: str, module: str, text: str) -> argparse.ArgumentParser:
    """A parser whose command is `module.command(args)`; the module is imported when the command runs."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    run: Callable[[argparse.Namespace], int] = lambda args: importlib.import_module(module).command(args)  # noqa: E731
    parser.set_defaults(run=run)
    return parser


def _add_run_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="RUN.yaml", help="run config")
    parser.add_argument("overrides", metavar="a.b=c", nargs="*", help="value in place of the file's, in YAML")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_quickstart(commands: Subparsers) -> None:
    text = "the whole path on text found on this machine: tokenizer, data set, training, export, fine-tuning"
    parser = _command(commands, "quickstart", "pipeline.quickstart", text)
    parser.add_argument("--out", metavar="DIR", default="quickstart", help="folder for all results (%(default)s)")
    parser.add_argument(
        "--layout",
        type=_layout,
        metavar="TPxPPxDP",
        help="tensor, pipeline and data parallel sizes; 2x2x1 by default, or what this machine's GPUs suffice for",
    )
    parser.add_argument("--steps", type=_positive, metavar="N", help="optimizer steps of the pre-training")
    _add_json(parser)


def _add_validate(commands: Subparsers) -> None:
    text = "report every problem of a run config at once; needs no GPU"
    parser = _command(commands, "validate", "pipeline.validate", text)
    _add_run_config(parser)
    _add_json(parser)


def _add_preview(data: Subparsers) -> None:
    text = "show samples of a run as the model sees them, decoded: masked, cut, with document boundaries"
    parser = _command(data, "preview", "pipeline.preview", text)
    _add_run_config(parser)
    parser.add_argument(
        "--position", type=_from_zero, metavar="K", default=0, help="of the first one in the run's order (%(default)s)"
    )
    parser.add_argument("--count", type=_positive, metavar="N", default=3, help="how many (%(default)s)")
    parser.add_argument("--validation", action="store_true", help="held-out samples, in their order")
    _add_json(parser)


def _add_train(commands: Subparsers) -> None:
    text = "pre-train: start the ranks on this machine, or be one of those that torchrun or srun started"
    _add_run_config(_command(commands, "train", "pipeline.launch", text))


def _add_export(commands: Subparsers) -> None:
    text = "turn a checkpoint into a Hugging Face folder, proven to compute the same logits"
    parser = _command(commands, "export", "pipeline.convert.export", text)
    parser.add_argument("checkpoint", metavar="CKPT|RUN_DIR", help="checkpoint, or run directory for its newest one")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    parser.add_argument(
        "--dtype", choices=["bf16", "fp16", "fp32"], help="of the weights; that of the training by default"
    )
    parser.add_argument("--tokenizer", metavar="DIR", help="tokenizer folder; that of the training data by default")
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="do not compare the logits")
    _add_json(parser)


def _add_generate(commands: Subparsers) -> None:
    parser = _command(commands, "generate", "pipeline.generate", "continue a text with an exported model")
    _add_model_folder(parser)
    parser.add_argument("--prompt", metavar="TEXT", required=True, help="text to continue")
    parser.add_argument("--max-new-tokens", type=_positive, metavar="N", default=64, help="%(default)s by default")
    parser.add_argument(
        "--temperature", type=_not_negative, metavar="T", default=0.8, help="0 takes the likeliest token (%(default)s)"
    )
    parser.add_argument("--seed", type=_seed, metavar="N", default=1234, help="of the sampling (%(default)s)")
    _add_json(parser)


def _add_finetune(commands: Subparsers) -> None:
    parser = _command(commands, "finetune", "pipeline.finetune", "fine-tune an exported model on a JSONL of texts")
    _add_model_folder(parser)
    parser.add_argument("--train", metavar="JSONL", required=True, help="texts to train on")
    parser.add_argument("--validation", metavar="JSONL", required=True, help="texts to measure the loss on")
    parser.add_argument("--text-key", metavar="KEY", default="text", help="field that holds the text (%(default)s)")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the fine-tuned model")
    parser.add_argument("--steps", type=_positive, metavar="N", default=100, help="optimizer steps (%(default)s)")
    parser.add_argument("--batch-size", type=_positive, metavar="N", default=8, help="in sequences (%(default)s)")
    parser.add_argument("--lr", type=_not_negative, metavar="X", default=2e-4, help="learning rate (%(default)s)")
    parser.add_argument("--seq-len", type=_positive, metavar="N", help="tokens per sequence; the model's by default")
    parser.add_argument("--seed", type=_seed, metavar="N", default=1234, help="of the order of the texts (%(default)s)")
    _add_json(parser)


def _add_evaluate(commands: Subparsers) -> None:
    parser = _command(commands, "eval", "pipeline.evaluate", "measure an exported model's loss on a data set")
    _add_model_folder(parser)
    parser.add_argument("--data", metavar="DIR", required=True, help="data set folder")
    parser.add_argument("--samples", type=_positive, metavar="N", help="sequences to use; all by default")
    _add_json(parser)


def _add_model_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="HF_DIR", help="folder that `pretrain export` wrote")


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return number


def _layout(text: str) -> tuple[int, int, int]:
    sizes = text.split("x")
    if len(sizes) != 3 or not all(size.isdecimal() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not TPxPPxDP, such as 2x2x1")
    tensor, pipeline, data = map(int, sizes)
    return tensor, pipeline, data


if __name__ == "__main__":
    sys.exit(main())
