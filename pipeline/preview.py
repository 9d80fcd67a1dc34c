"""`pretrain data preview`: samples of a run as the model sees them, decoded."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.config.load import load
from pipeline.config.schema import RunConfig
from pipeline.data.run_data import RunData, open_run_data
from pipeline.data.token_names import TokenNames
from pipeline.errors import DataError
from pipeline.objectives.samples import IGNORED

BOUNDARY = " ┃ "  # between documents
COLOURS = {"special": "\033[36m", "predicted": "\033[33m", "boundary": "\033[35m", "heading": "\033[1m"}
PLAIN = "\033[0m"
Row = dict[str, npt.NDArray[Any]]


class Part(NamedTuple):
    """Some text of a sample, and what it is: one of COLOURS, or nothing."""

    text: str
    kind: str = ""


def command(args: argparse.Namespace) -> int:
    """`pretrain data preview`: reads `config overrides position count validation json` of `args`."""
    config = load(args.config, args.overrides, for_training=False)
    data = open_run_data(config)
    names = TokenNames(data.tokenizer)
    in_colour = sys.stdout.isatty()
    for position in range(args.position, args.position + args.count):
        row, heading = _sample(data, position, validation=args.validation)
        if args.json:
            print(json.dumps(heading | {name: values.tolist() for name, values in row.items()}))
            continue
        parts = [Part(", ".join(f"{name} {value}" for name, value in heading.items()), "heading"), Part("\n")]
        _show([*parts, *_rendered(config, row, names), Part("\n\n")], in_colour=in_colour)
    return 0


def _sample(data: RunData, position: int, *, validation: bool) -> tuple[Row, dict[str, Any]]:
    """One sample, and what is to be said of it."""
    positions = np.array([position])
    if not validation:
        place = data.train.place(position)
        batch, heading = data.train.batch(positions), {"sample": position, **place._asdict()}
    else:
        if data.validation is None:
            raise DataError(
                "--validation is wrong because data.validation is not set. Set it, or leave the option out."
            )
        if position >= data.validation.num_samples:
            raise DataError(
                f"--position={position} is wrong because data.validation has {data.validation.num_samples} samples, "
                "from 0. Give a lower one."
            )
        batch, heading = data.validation.batch(positions), {"held-out sample": position}
    row = {name: values[0] for name, values in batch.items()}
    return row, heading | _figures(row)


def _figures(row: Row) -> dict[str, Any]:
    """What is in a sample, in numbers."""
    attended = row.get("attention_mask")
    found: dict[str, Any] = {"tokens": len(row["input_ids"]), "predicted": int((row["labels"] != IGNORED).sum())}
    if attended is not None and not attended.all():
        found["padding"] = int((~attended).sum())
    if "document_ids" in row:
        found["documents"] = int(row["document_ids"].max()) + 1
    if "next_sentence_label" in row:
        found["next_sentence_label"] = int(row["next_sentence_label"])
    return found


def _rendered(config: RunConfig, row: Row, names: TokenNames) -> Iterator[Part]:
    if config.objective.name == "masked":
        yield from _masked(row, names)
    elif config.objective.name == "span":
        yield Part("encoder ", "heading")
        yield from _plain(row["input_ids"][row["attention_mask"]], names)
        yield Part("\ndecoder ", "heading")
        yield from _plain(row["labels"][row["labels"] != IGNORED], names)
    else:
        yield from _causal(row, names)


def _plain(ids: npt.NDArray[Any], names: TokenNames) -> Iterator[Part]:
    """The text of `ids`, control tokens by their names."""
    for special, text in names.runs(ids):
        yield Part(text, "special" if special else "")


def _causal(row: Row, names: TokenNames) -> Iterator[Part]:
    """The inputs, with a mark between documents that are told apart, and without what is only filling."""
    ids, labels = row["input_ids"], row["labels"]
    filled = np.flatnonzero(labels != IGNORED)
    end = int(filled[-1]) + 1 if filled.size else 0
    tells_apart = "document_ids" in row or "position_ids" in row
    starts = np.flatnonzero(_document_starts(row)[:end]) if tells_apart else np.zeros(0, np.int64)
    for number, piece in enumerate(np.split(ids[:end], starts[starts > 0])):
        if number:
            yield Part(BOUNDARY, "boundary")
        yield from _plain(piece, names)


def _document_starts(row: Row) -> npt.NDArray[np.bool_]:
    if "document_ids" in row:
        return np.diff(row["document_ids"], prepend=-1) != 0
    starts: npt.NDArray[np.bool_] = row["position_ids"] == 0
    return starts


def _masked(row: Row, names: TokenNames) -> Iterator[Part]:
    """Guessed tokens as ⟦seen: right⟧; the two segments of a pair apart."""
    ids, labels, types = (row[name][row["attention_mask"]] for name in ("input_ids", "labels", "token_type_ids"))
    starts = np.flatnonzero((labels != IGNORED) | (np.roll(labels, 1) != IGNORED) | (np.diff(types, prepend=0) != 0))
    bounds = [0, *starts[starts > 0].tolist(), len(ids)]
    for start, stop in pairwise(bounds):
        if start and types[start] != types[start - 1]:
            yield Part(BOUNDARY, "boundary")
        if labels[start] == IGNORED:
            yield from _plain(ids[start:stop], names)
            continue
        seen, right = names.text(ids[start : start + 1]), names.text(labels[start : start + 1])
        space = " " if right.startswith(" ") else ""
        shown = right.strip() if seen == right else f"{seen.strip()}: {right.strip()}"
        yield Part(f"{space}⟦{shown}⟧", "predicted")


def _show(parts: Sequence[Part], *, in_colour: bool) -> None:
    for text, kind in parts:
        sys.stdout.write(f"{COLOURS[kind]}{text}{PLAIN}" if in_colour and kind else text)
