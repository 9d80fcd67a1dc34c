"""The commands `pretrain tokenizer ...` and `pretrain data ...`. Nothing heavy is imported before one runs."""

import argparse
import json
import os
from pathlib import Path

from data_prep import cli_data_set
from data_prep.arguments import Subparsers, command, num_bytes, show, task, whole_number
from data_prep.tokenizer.special_roles import KINDS, OBJECTIVES

MAX_VOCAB_SIZE = 2**24  # far above any in use, and below what overflows in SentencePiece's trainer


def add_commands(subparsers: Subparsers) -> Subparsers:
    """Add `tokenizer` and `data` to a parser; each command sets `run`, a function of the arguments to an exit code.

    Returns:
        The commands of `data`, to which others may add.
    """
    tokenizer = _group(subparsers, "tokenizer", "train a tokenizer")
    _add_train(tokenizer)
    data = _group(subparsers, "data", "turn text into a data set of token shards, and look into it")
    _add_tokenize(data)
    _add_status(data)
    cli_data_set.add_commands(data)
    return data


def _group(subparsers: Subparsers, name: str, text: str) -> Subparsers:
    parser = subparsers.add_parser(name, help=text, description=text)
    return parser.add_subparsers(dest=f"{name}_command", required=True, metavar="COMMAND")


def _add_input(parser: argparse.ArgumentParser, *, more: str = "") -> None:
    parser.add_argument(
        "--input",
        nargs="+",
        action="extend",
        required=True,
        metavar="GLOB",
        help=f"files, folders or quoted patterns ('books/**/*.txt'): .jsonl (also .json, .ndjson), .txt, each also as "
        f".gz or .zst, and .parquet{more}",
    )


def _add_train(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "train",
        "train a tokenizer",
        "The folder it makes is read by `pretrain data tokenize` and by transformers.AutoTokenizer, with the same ids.",
    )
    _add_input(parser)
    parser.add_argument("--text-key", default="text", metavar="KEY", help="field or column that holds the text")
    parser.add_argument(
        "--type",
        choices=KINDS,
        default="unigram",
        help="unigram and bpe are SentencePiece's, byte_bpe is GPT-2's, wordpiece BERT's (default: %(default)s)",
    )
    parser.add_argument(
        "--vocab-size", type=whole_number(1, MAX_VOCAB_SIZE), required=True, metavar="N", help="exact number of ids"
    )
    parser.add_argument(
        "--objective",
        nargs="+",
        action="extend",
        choices=OBJECTIVES,
        metavar="NAME",
        help="what will be trained with it, which decides the special tokens: causal, masked (adds MASK, CLS, SEP), "
        "span (adds 100 sentinels), fim (adds three for filling in the middle), all; default: causal, for wordpiece "
        "masked",
    )
    parser.add_argument("--lowercase", action="store_true", help="wordpiece only: lower case; accents are kept")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make; must be new or empty")
    parser.set_defaults(run=_train)


def _add_tokenize(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "tokenize",
        "turn text into a data set",
        "It is a folder of .bin/.idx shards, in Megatron's format, and a manifest.json, which is written last. The "
        "same command goes on where an earlier start was stopped or killed; any number of workers, tasks and machines "
        "that share the folder make the same bytes. Exit code 75: stopped, give the command again.",
    )
    _add_input(parser, more="; - is standard input, JSON lines unless --format says txt")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder or file: a SentencePiece model, or a tokenizer.json",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make, or to go on with")
    _add_reading(parser)
    _add_tokenizing(parser)
    _add_running(parser)
    parser.set_defaults(run=_tokenize)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is read")
    group.add_argument(
        "--text-key",
        nargs="+",
        action="extend",
        metavar="KEY",
        help="field or column that holds the text; several make a data set each, in OUT/KEY (default: text)",
    )
    group.add_argument("--template", metavar="TEXT", help="joins fields to one text, such as '{title}\\n\\n{body}'")
    group.add_argument(
        "--keep", nargs="+", action="extend", default=[], metavar="KEY", help="fields to keep beside each document"
    )
    group.add_argument(
        "--format",
        choices=["auto", "jsonl", "txt", "parquet"],
        default="auto",
        help="default: by the names of the files",
    )
    group.add_argument(
        "--txt-documents",
        choices=["file", "line", "block"],
        default="file",
        help="what one document of a .txt is: the file, a line, what stands between blank lines (default: %(default)s)",
    )
    group.add_argument(
        "--on-bad-record",
        choices=["fail", "skip", "quarantine"],
        default="fail",
        help="malformed JSON, no text, invalid UTF-8, ...: end the job, count it and go on, or also keep it in "
        "OUT/quarantine (default: %(default)s)",
    )
    group.add_argument(
        "--max-record-bytes", type=num_bytes, metavar="N", help="a longer record is a bad one (default: 16MiB)"
    )
    group.add_argument(
        "--min-characters", type=whole_number(1, 10**9), default=1, metavar="N", help="leave out shorter documents"
    )
    group.add_argument(
        "--dedup", action="store_true", help="leave out documents whose text, but for white space, was there before"
    )


def _add_tokenizing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is tokenized")
    group.add_argument(
        "--engine",
        choices=["auto", "fastokens", "gigatoken", "tiktoken", "sentencepiece", "hf"],
        default="auto",
        help="library that makes the ids; auto: the fastest that gives those of the reference, hf: the reference",
    )
    group.add_argument(
        "--recheck",
        type=whole_number(0, 10**6),
        default=8,
        metavar="N",
        help="documents of each shard to compare with the reference (default: %(default)s)",
    )
    group.add_argument(
        "--special-in-text",
        choices=["split", "encode", "error"],
        default="split",
        help="names of special tokens in a text are plain text, become the token, or make a bad record "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--split-sentences",
        nargs="?",
        const="en",
        metavar="LANG",
        help="store each sentence as a sequence, for objectives with pairs of segments, as Megatron-LM's "
        "BERT and T5 data sets are; by the rules of a language, such as de or zh (default: %(const)s)",
    )
    group.add_argument("--no-eod", action="store_true", help="do not end each document with the end-of-sequence id")
    group.add_argument("--eod-token", metavar="TOKEN", help="ends documents in place of the end-of-sequence token")


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who does it")
    group.add_argument(
        "--workers",
        type=whole_number(1, 4096),
        default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        metavar="N",
        help="processes on this machine (default: %(default)s, its cores)",
    )
    group.add_argument(
        "--task",
        type=task,
        default="0/1",
        metavar="I/N",
        help="do every N-th unit only, as task I of an array job, I from 0; the last task writes the manifest",
    )
    group.add_argument(
        "--unit-bytes", type=num_bytes, metavar="N", help="of text, that become one shard (default: 256MB)"
    )


def _add_status(subparsers: Subparsers) -> None:
    text = "show how far a tokenizing job is, wherever it runs"
    parser = command(subparsers, "status", text, "It reads the folder only; the job may run on other machines.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of the job")
    parser.add_argument("--follow", action="store_true", help="keep showing, until the data set is complete")
    parser.set_defaults(run=_status)


def _train(args: argparse.Namespace) -> int:
    from data_prep.text.inputs import find_inputs
    from data_prep.tokenizer.tokenizer_training import sample_texts, train_tokenizer

    texts = sample_texts(find_inputs(args.input), vocab_size=args.vocab_size, text_key=args.text_key)
    tokenizer = train_tokenizer(
        texts,
        kind=args.type,
        vocab_size=args.vocab_size,
        objectives=args.objective or (),
        lowercase=args.lowercase,
        out=args.out,
    )
    show(args, {"tokenizer": str(args.out), "vocab_size": tokenizer.vocab_size, "sha256": tokenizer.sha256})
    return 0


def _tokenize(args: argparse.Namespace) -> int:
    from data_prep.errors import DataError

    keys = args.text_key or ["text"]
    if args.no_eod and args.eod_token is not None:
        raise DataError("--no-eod and --eod-token cannot be used together. Give one of both.")
    if args.text_key and args.template is not None:
        raise DataError("--template names the fields of the text itself. Leave --text-key out.")
    if len(keys) == 1:
        return _tokenize_key(args, keys[0], args.out)
    if odd := [key for key in keys if key in ("", ".", "..") or "/" in key]:
        raise DataError(
            f"--text-key {odd[0]!r} cannot be the name of a folder. Make its data set in a command of its own."
        )
    if "-" in args.input:
        raise DataError("--input - can be read once, and several --text-key read the input several times. Give files.")
    return max(_tokenize_key(args, key, args.out / key) for key in keys)


def _tokenize_key(args: argparse.Namespace, key: str, out: Path) -> int:
    from data_prep.data_sets.stats import render, stats
    from data_prep.text.readers import MAX_RECORD_BYTES
    from data_prep.text.units import UNIT_BYTES
    from data_prep.tokenizing.job import TokenizeConfig
    from data_prep.tokenizing.options import Options
    from data_prep.tokenizing.tokenize import tokenize

    config = TokenizeConfig(
        text_key=key,
        template=None if args.template is None else args.template.replace("\\n", "\n").replace("\\t", "\t"),
        metadata_keys=tuple(args.keep),
        input_format=args.format,
        txt_documents=args.txt_documents,
        max_record_bytes=args.max_record_bytes or MAX_RECORD_BYTES,
        unit_bytes=args.unit_bytes or UNIT_BYTES,
        min_characters=args.min_characters,
        append_eod=not args.no_eod,
        eod_token=args.eod_token,
        special_in_text=args.special_in_text,
        dedup=args.dedup,
        split_sentences=args.split_sentences,
    )
    outcome = tokenize(
        inputs=args.input,
        tokenizer=args.tokenizer,
        out=out,
        config=config,
        options=Options(on_bad_record=args.on_bad_record, recheck=args.recheck),
        engine=args.engine,
        workers=args.workers,
        task=args.task,
    )
    if outcome.manifest is None:
        show(args, {"data_set": str(out), "task": args.task, "units_left_to_other_tasks": outcome.num_units_left})
    else:
        figures = stats(out)
        print(json.dumps({"data_set": str(out), **figures}) if args.json else render(figures))
    return 0


def _status(args: argparse.Namespace) -> int:
    from data_prep.tokenizing.monitor import Monitor, figures

    if args.follow:
        from data_prep.tokenizing.tokenize import follow

        follow(args.folder)
    show(args, figures(Monitor(args.folder).look()))
    return 0
