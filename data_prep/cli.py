"""The commands `pretrain tokenizer ...` and `pretrain data ...`. Nothing heavy is imported before one runs."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Subparsers = Any  # argparse._SubParsersAction, which is not public
MAX_VOCAB_SIZE = 2**24  # far above any in use, and below what overflows in SentencePiece's trainer


def add_commands(subparsers: Subparsers) -> None:
    """Add `tokenizer` and `data` to a parser; each command sets `run`, a function of the arguments to an exit code."""
    tokenizer = _group(subparsers, "tokenizer", "train a tokenizer")
    _add_train(tokenizer)
    data = _group(subparsers, "data", "turn text into a data set of token shards, and look into it")
    _add_tokenize(data)
    _add_verify(data)
    _add_stats(data)


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `lowest` to `highest`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = lowest - 1
        if not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {lowest} to {highest}")
        return number

    return parse


def _group(subparsers: Subparsers, name: str, text: str) -> Subparsers:
    parser = subparsers.add_parser(name, help=text, description=text)
    return parser.add_subparsers(dest=f"{name}_command", required=True, metavar="COMMAND")


def _command(subparsers: Subparsers, name: str, text: str, details: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=text, description=f"{text}. {details}")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="GLOB",
        help="UTF-8 text: .jsonl (a JSON object a line) or .txt (a document a file); quote patterns ('books/**/*.txt')",
    )
    parser.add_argument(
        "--text-key", default="text", metavar="KEY", help="the field of a .jsonl record that holds the text"
    )


def _add_train(subparsers: Subparsers) -> None:
    parser = _command(
        subparsers,
        "train",
        "train a SentencePiece tokenizer",
        "The folder it makes is read by `pretrain data tokenize` and by transformers.AutoTokenizer, with the same ids.",
    )
    _add_input(parser)
    parser.add_argument("--type", choices=["unigram", "bpe"], default="unigram", help="default: %(default)s")
    parser.add_argument(
        "--vocab-size", type=whole_number(1, MAX_VOCAB_SIZE), required=True, metavar="N", help="exact number of ids"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make; must be new or empty")
    parser.set_defaults(run=_train)


def _add_tokenize(subparsers: Subparsers) -> None:
    parser = _command(
        subparsers,
        "tokenize",
        "turn text into a data set",
        "It is a folder of .bin/.idx shards, in Megatron's format, and a manifest.json, which is written last.",
    )
    _add_input(parser)
    parser.add_argument(
        "--tokenizer", type=Path, required=True, metavar="DIR", help="as `pretrain tokenizer train` made it"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make; must be new or empty")
    parser.add_argument("--no-eod", action="store_true", help="do not end each document with the end-of-sequence id")
    parser.set_defaults(run=_tokenize)


def _add_verify(subparsers: Subparsers) -> None:
    text = "read a data set again and compare it with its manifest"
    parser = _command(subparsers, "verify", text, "Sizes, offsets, checksums, ids in range, document ends.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the data set")
    parser.set_defaults(run=_verify)


def _add_stats(subparsers: Subparsers) -> None:
    parser = _command(subparsers, "stats", "show the figures of a data set", "Tokens are not read: it answers at once.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the data set")
    parser.set_defaults(run=_stats)


def _train(args: argparse.Namespace) -> int:
    from data_prep.readers import find_inputs
    from data_prep.tokenizer_training import sample_texts, train_tokenizer

    texts = sample_texts(find_inputs(args.input), vocab_size=args.vocab_size, text_key=args.text_key)
    tokenizer = train_tokenizer(texts, kind=args.type, vocab_size=args.vocab_size, out=args.out)
    _show(args, {"tokenizer": str(args.out), "vocab_size": tokenizer.vocab_size, "sha256": tokenizer.sha256})
    return 0


def _tokenize(args: argparse.Namespace) -> int:
    from data_prep.readers import find_inputs
    from data_prep.stats import stats
    from data_prep.tokenize import tokenize

    tokenize(
        inputs=find_inputs(args.input),
        tokenizer_folder=args.tokenizer,
        out=args.out,
        text_key=args.text_key,
        append_eod=not args.no_eod,
    )
    _show(args, {"data_set": str(args.out), **stats(args.out)})
    return 0


def _verify(args: argparse.Namespace) -> int:
    from data_prep.verify import verify

    manifest = verify(args.folder)
    _show(args, {"data_set": str(args.folder), "state": "whole", "fingerprint": manifest.fingerprint})
    return 0


def _stats(args: argparse.Namespace) -> int:
    from data_prep.stats import stats

    _show(args, {"data_set": str(args.folder), **stats(args.folder)})
    return 0


def _show(args: argparse.Namespace, result: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(result))
        return
    width = max(map(len, result))
    for name, value in result.items():
        print(f"{name.replace('_', ' '):{width}}  {f'{value:,}' if isinstance(value, int) else value}")
