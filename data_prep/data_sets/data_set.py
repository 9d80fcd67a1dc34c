"""An opened data set: its manifest, its shards, mapped when needed, and its documents by number or in sweeps."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from data_prep.checksum import file_checksum
from data_prep.data_sets.documents import Documents, Sequences
from data_prep.errors import DataError
from data_prep.format import ShardIndex, idx_path, metadata_path, open_shard
from data_prep.manifest import Shard, load_manifest
from data_prep.metadata import Lines, MetadataReader
from data_prep.ragged import rows_up_to

OPEN_SHARDS = 64  # each mapped file holds a descriptor
BATCH_DOCUMENTS = 2**18
BATCH_SEQUENCES = 2**20
BATCH_BYTES = 2**24
REMEDY = "Run `pretrain data verify` on it; then restore the files, or tokenize again."


class Place(NamedTuple):
    """Where a document is: the shard, and its number in it, from 0."""

    shard: Shard
    number: int


@dataclass(frozen=True, kw_only=True)
class Batch(Documents):
    """Documents of a data set; `first` is the number of the first."""

    first: int


class DataSet:
    """The data set in a folder.

    Raises:
        DataError: there is none, its manifest was changed, or a file has another size than the manifest says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = load_manifest(folder)
        if self.manifest.checksum != self.manifest.expected_checksum():
            raise DataError(
                f"{folder}/manifest.json was changed: its checksum does not follow from its fields. {REMEDY}"
            )
        self._starts = np.cumsum([0, *(shard.num_documents for shard in self.manifest.shards)], dtype=np.int64)
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._open_shard)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.manifest.dtype).newbyteorder("<")

    @property
    def has_metadata(self) -> bool:
        """Whether something is kept of any document beside its tokens."""
        return any(shard.metadata_checksum is not None for shard in self.manifest.shards)

    def shard(self, shard: Shard) -> tuple[npt.NDArray[Any], ShardIndex]:
        """The tokens and the index of one of the manifest's shards, mapped.

        Raises:
            DataError: it is damaged, or not the one that the manifest describes.
        """
        return self._open(shard)

    def place(self, number: int) -> Place:
        """Where document `number` is.

        Raises:
            DataError: there is no such document.
        """
        if not 0 <= number < len(self):
            documents = f"documents 0 to {len(self) - 1}" if len(self) else "no documents"
            raise DataError(f"{self.folder} has no document {number}: it holds {documents}.")
        index = int(np.searchsorted(self._starts, number, side="right")) - 1
        return Place(self.manifest.shards[index], number - int(self._starts[index]))

    def document(self, number: int) -> npt.NDArray[Any]:
        """The tokens of document `number`, its end included, shape (num_tokens,); a view of the mapped shard."""
        return self._document(number)[0]

    def sequences(self, number: int) -> list[npt.NDArray[Any]]:
        """The tokens of each sequence of document `number`: of its sentences, or all in one. Views of the shard."""
        tokens, lengths = self._document(number)
        ends = np.cumsum(lengths).tolist()
        return [tokens[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _document(self, number: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Its tokens, and the lengths of its sequences."""
        shard, at = self.place(number)
        tokens, index = self.shard(shard)
        lengths = self._rows(shard, index, at, at + 1).lengths
        first = int(index.document_indices[at])
        start = int(index.pointers[first]) // index.dtype.itemsize if len(lengths) else 0
        stop = start + int(lengths.sum())
        if not 0 <= start <= stop <= len(tokens):
            raise DataError(f"{self.folder}/{shard.name}.idx: document {at} lies outside its .bin. {REMEDY}")
        return tokens[start:stop], lengths

    def metadata(self, numbers: range) -> Iterator[dict[str, Any] | None]:
        """What is kept of each of these documents beside its tokens, None where nothing is.

        The file of a shard is read from its start: it is compressed.
        """
        number = numbers.start
        while number < numbers.stop:
            shard, at = self.place(number)
            count = min(numbers.stop - number, shard.num_documents - at)
            if shard.metadata_checksum is None:
                yield from [None] * count
            else:
                yield from _records(metadata_path(self.folder, shard.name), at, count)
            number += count

    def batches(self, *, num_bytes: int = BATCH_BYTES, metadata: bool = False) -> Iterator[Batch]:
        """All documents in their order, in batches of up to `num_bytes` of tokens; a longer document is a batch.

        Every file is compared with its checksum on the way, so that no damage gets into what is made of them.

        Args:
            metadata: read the lines, too; those of documents without are `{}`.

        Raises:
            DataError: a file is damaged. It may come after the last batch of the shard.
        """
        first = 0
        for shard in self.manifest.shards:
            yield from self._batches_of(shard, first, num_bytes, metadata)
            first += shard.num_documents

    def _batches_of(self, shard: Shard, first: int, num_bytes: int, metadata: bool) -> Iterator[Batch]:
        tokens, index = self._open_shard(shard)  # not kept: a sweep would fill the memory with mapped pages
        self._compare(f"{shard.name}.idx", file_checksum(idx_path(self.folder, shard.name)), shard.idx_checksum)
        lines_path, checksum = metadata_path(self.folder, shard.name), xxhash.xxh3_128()
        with ExitStack() as stack:
            lines = None
            if metadata and shard.metadata_checksum is not None:
                self._compare(lines_path.name, file_checksum(lines_path), shard.metadata_checksum)
                lines = stack.enter_context(MetadataReader(lines_path))
            start = 0
            for sequences in self._sequence_batches(shard, max(num_bytes // index.dtype.itemsize, 1)):
                lengths = sequences.document_lengths
                end = start + int(lengths.sum())
                if end > len(tokens):
                    raise DataError(f"{self.folder}/{shard.name}.idx: its lengths do not fit its .bin. {REMEDY}")
                part = tokens[start:end]
                checksum.update(np.ascontiguousarray(part).data.cast("B"))
                count = len(lengths)
                yield Batch(
                    first=first,
                    tokens=part,
                    lengths=lengths,
                    sequences=sequences if self.manifest.sequences_are_sentences else None,
                    metadata=_lines(lines, count) if metadata else None,
                )
                first, start = first + count, end
        self._compare(f"{shard.name}.bin", checksum.hexdigest(), shard.bin_checksum)

    def sequence_lengths(self, shard: Shard) -> Iterator[Sequences]:
        """The lengths of all sequences of a shard, by whole documents, in pieces that fit in memory.

        Raises:
            DataError: it is damaged.
        """
        _, index = self._open_shard(shard)
        for at in range(0, index.num_documents, BATCH_DOCUMENTS):
            counts = np.diff(index.document_indices[at : at + BATCH_DOCUMENTS + 1])
            for rows in rows_up_to(counts, BATCH_SEQUENCES):
                yield self._rows(shard, index, at + rows.start, at + rows.stop)

    def _sequence_batches(self, shard: Shard, num_tokens: int) -> Iterator[Sequences]:
        """Those of documents of up to `num_tokens` in sum, and at least one document."""
        for piece in self.sequence_lengths(shard):
            stops = np.cumsum(np.concatenate([[0], piece.counts]))
            for rows in rows_up_to(piece.document_lengths, num_tokens):
                lengths = piece.lengths[stops[rows.start] : stops[rows.stop]]
                yield Sequences(lengths, piece.counts[rows])

    def _rows(self, shard: Shard, index: ShardIndex, first: int, last: int) -> Sequences:
        try:
            found = Sequences(*index.documents(first, last))
        except DataError as error:
            raise DataError(f"{self.folder}/{shard.name}.idx: {error}. {REMEDY}") from error
        if not self.manifest.sequences_are_sentences and (found.counts != 1).any():
            raise DataError(
                f"{self.folder}/{shard.name}.idx: it has documents of several sequences, or of none. {REMEDY}"
            )
        return found

    def _compare(self, name: str, found: str, expected: str) -> None:
        if found != expected:
            raise DataError(f"{self.folder / name}: its bytes changed (checksum). {REMEDY}")

    def _open_shard(self, shard: Shard) -> tuple[npt.NDArray[Any], ShardIndex]:
        tokens, index = open_shard(self.folder, shard.name)
        found = index.dtype.name, index.num_documents, len(index.lengths), len(tokens)
        expected = self.manifest.dtype, shard.num_documents, shard.num_sequences, shard.num_tokens
        if found != expected:
            raise DataError(
                f"{self.folder}/{shard.name}.idx: dtype, documents, sequences and tokens are {found}, its manifest "
                f"says {expected}. {REMEDY}"
            )
        return tokens, index


def without_end(tokens: npt.NDArray[Any], eod_id: int | None) -> npt.NDArray[Any]:
    """The tokens of a document, or of its last sentence, without the id that ends it."""
    return tokens[:-1] if eod_id is not None and len(tokens) and tokens[-1] == eod_id else tokens


def _lines(reader: MetadataReader | None, count: int) -> Lines:
    if reader is not None:
        return reader.read(count)
    empty = b"{}\n"
    return Lines(np.frombuffer(empty * count, np.uint8), np.full(count, len(empty), np.int64))


def _records(path: Path, first: int, count: int) -> Iterator[dict[str, Any]]:
    with MetadataReader(path) as reader:
        while first:
            skipped = min(first, BATCH_DOCUMENTS)
            reader.read(skipped)
            first -= skipped
        while count:
            read = min(count, BATCH_DOCUMENTS)
            content = reader.read(read).content.tobytes()
            yield from map(orjson.loads, content.splitlines())
            count -= read
