"""Figures of a data set, from its manifest and its indices."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_prep.accounting import Counters
from data_prep.data_sets.data_set import DataSet
from data_prep.data_sets.lengths import LengthCounts
from data_prep.manifest import Manifest
from data_prep.progress import progress

BAR_CHARACTERS = 40


def stats(folder: Path) -> dict[str, Any]:
    """Figures of the data set in `folder`, by name, as JSON can hold them; the tokens themselves are not read.

    All of them are exact, the median too. Memory: 16 MB, and 4 bytes for each document of more than a million tokens.

    Raises:
        DataError: there is no data set, or a file has another size than its manifest says.
    """
    data_set = DataSet(folder)
    manifest = data_set.manifest
    lengths = _lengths(data_set)
    sentences = _sentence_figures(manifest) if manifest.sequences_are_sentences else {}
    counters = Counters.sum(preparation.counters for preparation in manifest.preparations)
    mean = manifest.num_tokens / manifest.num_documents if manifest.num_documents else None
    return {
        "shards": len(manifest.shards),
        "documents": manifest.num_documents,
        "tokens": manifest.num_tokens,
        "text_bytes": manifest.num_text_bytes,
        "tokens_per_byte": _ratio(manifest.num_tokens, manifest.num_text_bytes),
        "tokens_per_document_min": lengths.shortest,
        "tokens_per_document_median": lengths.median,
        "tokens_per_document_mean": None if mean is None else round(mean, 1),
        "tokens_per_document_max": lengths.longest,
        **sentences,
        "vocab_size": manifest.vocab_size,
        "dtype": manifest.dtype,
        "eod_id": manifest.eod_id,
        "tokenizer": os.path.normpath(manifest.tokenizer_path(folder)),
        "metadata_keys": list(manifest.metadata_keys),
        "fingerprint": manifest.fingerprint,
        "length_histogram": [asdict(bucket) for bucket in lengths.histogram()],
        "sources": [
            {**asdict(source), "tokens_per_byte": _ratio(source.num_tokens, source.num_text_bytes)}
            for source in manifest.sources
        ],
        "records": asdict(counters),
        "preparations": _preparation_figures(manifest),
    }


def render(figures: dict[str, Any]) -> str:
    """The figures of `stats` for a terminal: a table, the sources, what was left out, and the lengths as bars."""
    plain = {name: value for name, value in figures.items() if not isinstance(value, list | dict)}
    width = max(map(len, plain))
    lines = [f"{name.replace('_', ' '):{width}}  {_shown(value)}" for name, value in plain.items()]
    lines += _source_lines(figures["sources"])
    lines += _record_lines(figures["records"])
    for one in figures["preparations"]:
        found = f"; sentences: {one['sentences']}" if one["sentences"] else ""
        lines.append(
            f"\nids made by {one['engine']}; parity: {one['parity']}; special tokens in text: "
            f"{one['special_in_text']}{found}"
        )
    return "\n".join(lines + _histogram_lines(figures["length_histogram"]))


def _lengths(data_set: DataSet) -> LengthCounts:
    counts = LengthCounts()
    with progress("stats", total=len(data_set), unit="documents") as shown:
        for shard in data_set.manifest.shards:
            for sequences in data_set.sequence_lengths(shard):
                counts.add(sequences.document_lengths)
                shown.update(len(sequences.counts))
    return counts


def _sentence_figures(manifest: Manifest) -> dict[str, Any]:
    documents, sentences = manifest.num_documents, manifest.num_sequences
    return {
        "sentences": sentences,
        "sentences_per_document_mean": round(sentences / documents, 1) if documents else None,
        "tokens_per_sentence_mean": round(manifest.num_tokens / sentences, 1) if sentences else None,
    }


def _preparation_figures(manifest: Manifest) -> list[dict[str, Any]]:
    """How ids were made; equal ones once."""
    figures = [
        {
            "engine": one.engine,
            "parity": one.parity,
            "special_in_text": one.special_in_text,
            "sentences": f"{one.sentences.language}, {one.sentences.library}" if one.sentences else None,
        }
        for one in manifest.preparations
    ]
    return [one for at, one in enumerate(figures) if one not in figures[:at]]


def _ratio(num_tokens: int, num_bytes: int | None) -> float | None:
    return round(num_tokens / num_bytes, 4) if num_bytes else None


def _shown(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _source_lines(sources: list[dict[str, Any]]) -> list[str]:
    header = ("source", "documents", "tokens", "text bytes", "tokens per byte")
    names = ("name", "num_documents", "num_tokens", "num_text_bytes", "tokens_per_byte")
    rows = [header, *(tuple(_shown(source[name]) for name in names) for source in sources)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "",
        *("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows),
    ]


def _record_lines(records: dict[str, Any]) -> list[str]:
    if not records["lines"]:
        return []
    left_out = {"empty": records["empty"], "duplicate": records["duplicate"]}
    left_out |= {f"filtered: {reason}": count for reason, count in records["filtered"].items()}
    left_out |= {f"bad: {kind}": count for kind, count in records["bad"].items()}
    counted = {name: count for name, count in left_out.items() if count}
    lines = ["", f"{records['lines']:,} records were read, {records['documents']:,} became documents"]
    width = max(map(len, counted), default=0)
    return lines + [f"  {name:{width}}  {count:,}" for name, count in counted.items()]


def _histogram_lines(buckets: list[dict[str, int]]) -> list[str]:
    while buckets and not buckets[0]["num_documents"]:
        buckets = buckets[1:]
    most = max((bucket["num_documents"] for bucket in buckets), default=0)
    if not most:
        return []
    ranges = [_range(bucket["lowest"], bucket["highest"]) for bucket in buckets]
    width = max(map(len, ranges))
    counts = [f"{bucket['num_documents']:,}" for bucket in buckets]
    count_width = max(map(len, counts))
    bars = ["#" * -(-BAR_CHARACTERS * bucket["num_documents"] // most) for bucket in buckets]
    rows = zip(ranges, counts, bars, strict=True)
    return ["", "tokens per document", *(f"{a:>{width}}  {b:>{count_width}}  {c}".rstrip() for a, b, c in rows)]


def _range(lowest: int, highest: int) -> str:
    return f"{lowest:,}" if lowest == highest else f"{lowest:,} - {highest:,}"
