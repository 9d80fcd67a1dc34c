"""Documents whose end was written but not counted: a defect of Megatron's tools, found with certainty and undone.

`tools/preprocess_data.py --append-eod` appends the end-of-document id to a document's ids after it has noted their
number (`doc_ids.append(eod)`, and no `sentence_lens[-1] += 1`). All ids are written to the .bin, but the .idx counts
one token less for each document that has any, and places follow from the counts. So the .bin is longer than the .idx
says by one token for each such document, and document k, from 0, starts k tokens early; the last are never read.

Source: Megatron-LM from d1a36e53 (2023-06-26; `preprocess_data_partitions.py` from 7fc96111, 2022-11-17) until it was
mended in 788af6f7 (2023-08-05, issue 431); deepspeedai/Megatron-DeepSpeed 4efb479 (2025-07-16), lines 97 to 100, still.
"""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from data_prep.atomic import replacing, same_bytes
from data_prep.checksum import file_checksum
from data_prep.data_sets.pair import document_ends, index_problems, open_pair
from data_prep.errors import DataError
from data_prep.format import (
    DTYPE_CODES,
    HEADER,
    MAGIC,
    MAX_SEQUENCE_TOKENS,
    VERSION,
    ShardIndex,
    bin_path,
    idx_path,
)
from data_prep.manifest import Manifest, Shard, Source, make_manifest, read_manifest, save_manifest

INFER_FROM = 3  # documents, in which the end-of-document id is found by itself
DOCUMENTS = 2**16  # whose sequences are in memory together


@dataclass(frozen=True, kw_only=True)
class Shift:
    """That the ends of documents were not counted.

    Attributes:
        num_documents: those that have tokens: so many are missing in the .idx.
        eod_id: the token at the true end of each of them.
    """

    num_documents: int
    eod_id: int

    def describe(self, path: Path) -> str:
        """What it is, and what to do for the pair or data set `path`."""
        return (
            f"the documents are shifted: the .bin holds {self.num_documents} tokens more than the .idx counts, one for "
            f"each of its {self.num_documents} documents, and the token at each true end is {self.eod_id}. Megatron's "
            "tools/preprocess_data.py --append-eod does so (Megatron-LM in summer 2023, Megatron-DeepSpeed to this "
            "day): it writes the end-of-document token but does not count it, so that each document starts one token "
            "earlier than the one before. No token is lost: `pretrain data verify "
            f"{path} --repair` writes the right .idx, and keeps the old one as .idx.shifted."
        )


def find_shift(tokens: npt.NDArray[Any], index: ShardIndex, *, eod_id: int | None) -> Shift | None:
    """The shift of a pair; None if it has none, or another defect.

    The .bin must be longer by exactly the number of documents that have sequences, and the token at each true end must
    be `eod_id`, but not the token at each end that the .idx states: that would be a right pair whose .bin grew. Where
    `eod_id` is not known, it is the token at the first true end; then the pair must have at least INFER_FROM such
    documents, and its stated ends must not be all the same.
    """
    if next(index_problems("", tokens, index, None), None) is not None:
        return None
    counted = int(index.pointers[-1]) // index.dtype.itemsize + int(index.lengths[-1]) if len(index.lengths) else 0
    extra, before = len(tokens) - counted, 0
    if extra <= 0 or (eod_id is None and extra < INFER_FROM):
        return None
    true_end, stated_end, stated_ends_differ = eod_id, eod_id, False
    for ends in document_ends(index):
        places = ends.stops + np.arange(before, before + len(ends.stops))
        before += len(ends.stops)
        if before > extra:
            return None
        found, stated = tokens[places], tokens[np.maximum(ends.stops, 1) - 1]
        if len(found):
            true_end = int(found[0]) if true_end is None else true_end
            stated_end = int(stated[0]) if stated_end is None else stated_end
        if (found != true_end).any():
            return None
        stated_ends_differ |= bool((stated != stated_end).any())
    if before != extra or true_end is None or not stated_ends_differ:
        return None
    return Shift(num_documents=before, eod_id=true_end)


def repair_pair(prefix: Path, *, eod_id: int | None = None) -> Shift:
    """Writes the .idx that `prefix`.bin has in truth; the old one becomes `prefix`.idx.shifted.

    Raises:
        DataError: the pair is not shifted, a file is missing, or the disk is full; nothing was changed then.
    """
    tokens, index = open_pair(prefix)
    shift = find_shift(tokens, index, eod_id=eod_id)
    if shift is None:
        raise DataError(
            f"{prefix} is not shifted: there is nothing that --repair could do. `pretrain data verify {prefix}` says "
            "what it is. Give --eod-id if its documents are few."
        )
    path = idx_path(prefix.parent, prefix.name)
    old = shifted_path(path)
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            _write_repaired(file, index)
        _keep(path, old)
    return shift


def repair_data_set(folder: Path) -> int:
    """Repairs each shifted shard of a data set and brings its manifest up to date. A killed repair goes on.

    Returns:
        How many tokens are counted now that were not.

    Raises:
        DataError: no shard is shifted, or the sources of the new tokens cannot be told; nothing was changed then.
    """
    old = read_manifest(folder)
    gains = [_gain(folder, shard, old) for shard in old.shards]
    if not any(gains):
        raise DataError(f"no shard of {folder} is shifted: there is nothing that --repair could do.")
    manifest = make_manifest(
        vocab_size=old.vocab_size,
        dtype=old.dtype,
        eod_id=old.eod_id,
        tokenizer=old.tokenizer,
        sources=_with_gain(old, sum(gains)),
        shards=[
            _repair_shard(folder, shard, old) if gain else shard for shard, gain in zip(old.shards, gains, strict=True)
        ],
        preparations=old.preparations,
        metadata_keys=old.metadata_keys,
    )
    save_manifest(manifest, folder)
    return sum(gains)


def shifted_path(path: Path) -> Path:
    """Where the .idx `path` is kept when it is replaced."""
    return path.with_name(f"{path.name}.shifted")


def _gain(folder: Path, shard: Shard, manifest: Manifest) -> int:
    """The tokens of a shard that its manifest does not count; 0 where it is not shifted."""
    tokens, index = open_pair(folder / shard.name)
    shift = find_shift(tokens, index, eod_id=manifest.eod_id)
    if shift is not None:
        return shift.num_documents
    # Else a repair may have been killed before it wrote the manifest.
    return len(tokens) - shard.num_tokens if shifted_path(idx_path(folder, shard.name)).exists() else 0


def _repair_shard(folder: Path, shard: Shard, manifest: Manifest) -> Shard:
    prefix = folder / shard.name
    tokens, index = open_pair(prefix)
    if find_shift(tokens, index, eod_id=manifest.eod_id) is not None:
        repair_pair(prefix, eod_id=manifest.eod_id)
    return dataclasses.replace(
        shard,
        num_tokens=len(tokens),
        bin_bytes=tokens.nbytes,
        bin_checksum=file_checksum(bin_path(folder, shard.name)),
        idx_checksum=file_checksum(idx_path(folder, shard.name)),
    )


def _with_gain(manifest: Manifest, gained: int) -> list[Source]:
    """The sources with the tokens that were not counted: one for each document, where all have one."""
    sources = manifest.sources
    if len(sources) == 1:
        return [dataclasses.replace(sources[0], num_tokens=sources[0].num_tokens + gained)]
    if gained != manifest.num_documents:
        raise DataError(
            f"{gained} tokens were not counted for {manifest.num_documents} documents of {len(sources)} sources: whose "
            "they are cannot be told. Tokenize again."
        )
    return [dataclasses.replace(one, num_tokens=one.num_tokens + one.num_documents) for one in sources]


def _keep(path: Path, old: Path) -> None:
    if old.exists() and not same_bytes(path, old):
        raise DataError(f"{old} exists already, from another repair. Move it away first.")
    if not old.exists():
        try:
            os.link(path, old)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, old)


def _write_repaired(file: BinaryIO, index: ShardIndex) -> None:
    [code] = [code for code, known in DTYPE_CODES.items() if known == index.dtype]
    file.write(HEADER.pack(MAGIC, VERSION, code, len(index.lengths), len(index.document_indices)))
    for lengths in _repaired_lengths(index):
        file.write(lengths.astype("<i4").data)
    place = 0
    for lengths in _repaired_lengths(index):
        ends = place + np.cumsum(lengths) * index.dtype.itemsize
        file.write((ends - lengths * index.dtype.itemsize).astype("<i8").data)
        place = int(ends[-1]) if len(ends) else place
    _copy(file, index.document_indices.view(np.uint8))


def _repaired_lengths(index: ShardIndex) -> Iterator[npt.NDArray[np.int64]]:
    """The lengths of all sequences, in pieces, the last of each document one more."""
    for at in range(0, len(index.document_indices) - 1, DOCUMENTS):
        boundaries = np.array(index.document_indices[at : at + DOCUMENTS + 1])
        lengths = index.lengths[boundaries[0] : boundaries[-1]].astype(np.int64)
        lengths[np.unique(boundaries[1:][boundaries[1:] > boundaries[:-1]]) - boundaries[0] - 1] += 1
        if lengths.max(initial=0) > MAX_SEQUENCE_TOKENS:
            raise DataError(f"a sequence of {lengths.max()} tokens does not fit the format (2^31 - 1). Tokenize again.")
        yield lengths


def _copy(file: BinaryIO, content: npt.NDArray[np.uint8]) -> None:
    for at in range(0, len(content), 2**22):
        file.write(content[at : at + 2**22].data)
