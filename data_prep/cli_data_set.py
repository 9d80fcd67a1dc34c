"""The commands on finished data sets: `pretrain data verify | stats | cat | merge | split | pack`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from data_prep.arguments import Subparsers, command, show, whole_number

MEGABYTE = 10**6
MAX_SEQ_LEN = 2**31 - 2  # a packed window is one longer, and its length an int32
PAIR_SUFFIXES = (".bin", ".idx")


def add_commands(data: Subparsers) -> None:
    """Add the commands to the subparsers of `data`; each sets `run`, a function of the arguments to an exit code."""
    _add_verify(data)
    _add_stats(data)
    _add_cat(data)
    _add_merge(data)
    _add_split(data)
    _add_pack(data)


def _add_verify(data: Subparsers) -> None:
    parser = command(
        data,
        "verify",
        "read a data set again and compare everything that must agree",
        "Sizes, offsets, checksums, counts, ids in range, document ends. PREFIX.bin and PREFIX.idx of Megatron-LM, "
        "NeMo or GPT-NeoX can be verified, too.",
    )
    parser.add_argument(
        "path", type=Path, metavar="DIR|PREFIX", help="the data set, or a .bin/.idx pair without ending"
    )
    parser.add_argument("--deep", action="store_true", help="also decode a sample of documents, and encode it again")
    parser.add_argument(
        "--repair", action="store_true", help="write the right .idx of a pair whose document ends were not counted"
    )
    parser.add_argument(
        "--eod-id", type=whole_number(0), metavar="N", help="for a PREFIX: what each document must end with"
    )
    parser.add_argument(
        "--vocab-size", type=whole_number(1), metavar="N", help="for a PREFIX: what each id must be below"
    )
    parser.set_defaults(run=_verify)


def _add_stats(data: Subparsers) -> None:
    parser = command(data, "stats", "show the figures of a data set", "Tokens are not read.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the data set")
    parser.set_defaults(run=_stats)


def _add_cat(data: Subparsers) -> None:
    parser = command(data, "cat", "show documents of a data set", "With --json, an object a line for each.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the data set")
    parser.add_argument("--doc", type=int, required=True, metavar="N", help="number of the (first) document, from 0")
    parser.add_argument("--count", type=whole_number(1), default=1, metavar="K", help="how many; default: %(default)s")
    parser.add_argument("--ids", action="store_true", help="their token ids instead of their text")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="where the tokenizer is now, if it has moved")
    parser.set_defaults(run=_cat)


def _add_merge(data: Subparsers) -> None:
    parser = command(
        data,
        "merge",
        "make one data set of several that were made with the same tokenizer",
        "Without --shuffle its files are hard links, and take no room.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="the data sets")
    _add_out(parser)
    parser.add_argument("--shuffle", type=whole_number(0), metavar="SEED", help="put all documents in a random order")
    parser.add_argument(
        "--memory-mb", type=whole_number(16), default=512, metavar="MB", help="for --shuffle; default: %(default)s"
    )
    parser.set_defaults(run=_merge)


def _add_split(data: Subparsers) -> None:
    parser = command(
        data,
        "split",
        "make two data sets of one: DIR/train and DIR/held_out",
        "A document's side follows from its content: equal documents are never on both sides.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the data set")
    _add_out(parser)
    parser.add_argument(
        "--held-out", type=float, required=True, metavar="SHARE", help="of documents, to expect in held_out: 0.01"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="default: %(default)s")
    parser.set_defaults(run=_split)


def _add_pack(data: Subparsers) -> None:
    parser = command(
        data,
        "pack",
        "put whole documents together in windows, for training with data.packing=true",
        "What makes up each window is stored beside the shards. A document is cut only if it is longer than a window. "
        "The same command goes on where an earlier start was stopped.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the data set")
    parser.add_argument(
        "--seq-len", type=whole_number(1, MAX_SEQ_LEN), required=True, metavar="N", help="model.seq_len of the run"
    )
    parser.set_defaults(run=_pack)


def _verify(args: argparse.Namespace) -> int:
    prefix = args.path.with_suffix("") if args.path.suffix in PAIR_SUFFIXES else args.path
    is_pair = not args.path.is_dir() and any(prefix.with_name(prefix.name + end).exists() for end in PAIR_SUFFIXES)
    return _verify_pair(args, prefix) if is_pair else _verify_data_set(args)


def _verify_pair(args: argparse.Namespace, prefix: Path) -> int:
    from dataclasses import asdict

    from data_prep.data_sets.repair import repair_pair
    from data_prep.data_sets.verify_pair import verify_pair
    from data_prep.errors import DataError

    if args.deep:
        raise DataError(f"--deep needs the manifest of a data set, which names its tokenizer; {prefix} has none.")
    repaired = {"repaired_documents": repair_pair(prefix, eod_id=args.eod_id).num_documents} if args.repair else {}
    report = verify_pair(prefix, eod_id=args.eod_id, vocab_size=args.vocab_size)
    show(args, {"pair": str(prefix), "state": "whole", **repaired, **asdict(report)})
    return 0


def _verify_data_set(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from data_prep.data_sets.repair import repair_data_set
    from data_prep.data_sets.verify import verify
    from data_prep.errors import DataError

    if args.eod_id is not None or args.vocab_size is not None:
        raise DataError(f"--eod-id and --vocab-size are for a pair without manifest; that of {args.path} states them.")
    repaired = {"repaired_tokens": repair_data_set(args.path)} if args.repair else {}
    manifest = verify(args.path)
    result = {"data_set": str(args.path), "state": "whole", "fingerprint": manifest.fingerprint, **repaired}
    if args.deep:
        from data_prep.data_sets.verify_text import verify_text

        sample = verify_text(args.path)
        if sample.tokenizer is None and not args.json:
            print(f"nothing was decoded: {manifest.tokenizer_path(args.path)} is not there", file=sys.stderr)
        result |= {f"sample_{name}": value for name, value in asdict(sample).items()}
    show(args, result)
    return 0


def _stats(args: argparse.Namespace) -> int:
    from data_prep.data_sets.stats import render, stats

    figures = stats(args.folder)
    print(json.dumps({"data_set": str(args.folder), **figures}) if args.json else render(figures))
    return 0


def _cat(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from data_prep.data_sets.cat import documents

    for one in documents(args.folder, first=args.doc, count=args.count, ids=args.ids, tokenizer=args.tokenizer):
        if args.json:
            print(json.dumps({name: value for name, value in asdict(one).items() if value is not None}))
            continue
        if args.count > 1:
            print(f"--- document {one.document}: {one.num_tokens} tokens, number {one.number} of {one.shard}")
        print(one.text if one.ids is None else " ".join(map(str, one.ids)))
    return 0


def _merge(args: argparse.Namespace) -> int:
    if args.shuffle is None:
        from data_prep.data_sets.merge import merge

        manifest = merge(args.folders, args.out)
    else:
        from data_prep.data_sets.shuffle import shuffle

        manifest = shuffle(args.folders, args.out, seed=args.shuffle, memory_bytes=args.memory_mb * MEGABYTE)
    show(args, {"data_set": str(args.out), **_figures(manifest)})
    return 0


def _split(args: argparse.Namespace) -> int:
    from data_prep.data_sets.split import split

    manifests = split(args.folder, args.out, held_out=args.held_out, seed=args.seed)
    result: dict[str, Any] = {}
    for side, manifest in manifests.items():
        result[side] = str(args.out / side)
        result |= {f"{side}_{name}": value for name, value in _figures(manifest).items()}
    show(args, result)
    return 0


def _pack(args: argparse.Namespace) -> int:
    from data_prep.data_sets.packing import pack
    from data_prep.manifest import read_manifest

    packing = pack(args.folder, seq_len=args.seq_len)
    result = {
        "data_set": str(args.folder),
        "seq_len": packing.seq_len,
        "windows": packing.num_windows,
        "fill": packing.fill and round(packing.fill, 4),
        "documents": read_manifest(args.folder).num_documents,
        "cut_documents": packing.num_cut,
        "cut_documents_by_concatenation": packing.num_cut_by_concatenation,
    }
    show(args, result)
    return 0


def _figures(manifest: Any) -> dict[str, Any]:
    return {
        "shards": len(manifest.shards),
        "documents": manifest.num_documents,
        "tokens": manifest.num_tokens,
        "fingerprint": manifest.fingerprint,
    }


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make; must be new or empty")
