"""What the commands of data preparation have in common: kinds of arguments, and how a result is printed."""

import argparse
import json
from collections.abc import Callable
from typing import Any

Subparsers = Any  # argparse._SubParsersAction, which is not public
BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def command(subparsers: Subparsers, name: str, text: str, details: str) -> argparse.ArgumentParser:
    """The parser of a new command, which prints its result as JSON on request."""
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=text, description=f"{text}. {details}")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def whole_number(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number from `lowest` to `highest`; without one, to what 64 bits hold."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = lowest - 1
        if not lowest <= number <= (2**63 - 1 if highest is None else highest):
            bounds = f"from {lowest} on" if highest is None else f"from {lowest} to {highest}"
            raise argparse.ArgumentTypeError(f"{text} is not a whole number {bounds}")
        return number

    return parse


def num_bytes(text: str) -> int:
    """An argparse type: a number of bytes, such as 4096, 16MB (10^6) or 16MiB (2^20)."""
    digits = text.rstrip("BbKkMmGgIi")
    factor = BYTES.get(text[len(digits) :].lower(), 0)
    if not digits.isdecimal() or not 0 < int(digits) * factor < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not a number of bytes, such as 4096, 16MB or 16MiB")
    return int(digits) * factor


def task(text: str) -> str:
    """An argparse type: `I/N`, task I of N, counted from 0."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(
            f"{text} is not I/N with I from 0 to N - 1; for 16 tasks use `sbatch --array=0-15`"
        )
    return text


def show(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print a result, a line for each value, or as JSON."""
    if args.json:
        print(json.dumps(result))
        return
    width = max(map(len, result))
    for name, value in result.items():
        print(f"{name.replace('_', ' '):{width}}  {f'{value:,}' if isinstance(value, int) else value}")
