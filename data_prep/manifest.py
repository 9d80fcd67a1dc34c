"""What a data set holds: `manifest.json`, written last, so that a folder with one is complete."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import xxhash

from data_prep.accounting import Counters
from data_prep.atomic import replacing
from data_prep.errors import DataError
from data_prep.format import idx_bytes, metadata_path
from data_prep.records import to_json, typed

FILE_NAME = "manifest.json"
FORMAT_VERSION = 3
REMEDY = "Tokenize again."


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One .bin/.idx pair, and the metadata file beside it where metadata is kept. Checksums are xxh3-128 in hex."""

    name: str
    num_documents: int
    num_sequences: int
    num_tokens: int
    bin_bytes: int
    bin_checksum: str
    idx_checksum: str
    metadata_checksum: str | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A part of the input that is counted apart: what one pattern of `--input` named.

    Attributes:
        num_text_bytes: UTF-8 bytes of the text that was tokenized; None where a split has made it unknown.
    """

    name: str
    num_documents: int
    num_tokens: int
    num_text_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class TokenizerRecord:
    """The tokenizer that made the ids.

    Attributes:
        path: its folder or file; a relative one counts from the folder of the data set.
        sha256: of its model file, in hex; `Tokenizer.sha256` of the same tokenizer is equal.
    """

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SentenceRecord:
    """The language by whose rules documents were cut into sentences, and name and version of the library that did."""

    language: str
    library: str


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How documents came to be tokens, and what became of every record. A merged data set has several.

    Attributes:
        config_hash: of everything that decides the bytes but the input.
        engine: name and version of the library that made the ids.
        parity: against what its ids were compared, with what result.
        special_in_text: what was done with names of special tokens in a text: split, encode or error.
        sentences: how documents were cut, where each sequence is a sentence; None where each is a document.
    """

    config_hash: str
    engine: str
    parity: str
    special_in_text: str
    sentences: SentenceRecord | None
    counters: Counters


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A data set, described.

    Attributes:
        dtype: numpy's name of the token ids' type.
        eod_id: the id that ends each document; None if documents are not ended by one.
        num_tokens: in all shards, the end-of-document tokens included.
        metadata_keys: what is kept of each document beside its tokens.
        fingerprint: xxh3-128 of what training sees: equal for equal data.
        checksum: xxh3-128 of all other fields: a damaged manifest does not go unnoticed.
    """

    format_version: int = FORMAT_VERSION
    vocab_size: int
    dtype: str
    eod_id: int | None
    num_documents: int
    num_tokens: int
    tokenizer: TokenizerRecord
    sources: tuple[Source, ...]
    metadata_keys: tuple[str, ...]
    preparations: tuple[Preparation, ...]
    shards: tuple[Shard, ...]
    fingerprint: str
    checksum: str

    @property
    def sequences_are_sentences(self) -> bool:
        """Whether a sequence of a shard is a sentence, and a document a run of them; else a sequence is a document."""
        return any(one.sentences is not None for one in self.preparations)

    @property
    def num_sequences(self) -> int:
        """In all shards: sentences, or documents."""
        return sum(shard.num_sequences for shard in self.shards)

    @property
    def num_text_bytes(self) -> int | None:
        """UTF-8 bytes of the text that was tokenized; None if those of a source are unknown."""
        sizes = [source.num_text_bytes for source in self.sources]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def tokenizer_path(self, folder: Path) -> Path:
        """Where the tokenizer lies, for a data set in `folder`."""
        return folder / self.tokenizer.path

    def expected_fingerprint(self) -> str:
        seen = [self.vocab_size, self.dtype, self.eod_id, self.tokenizer.sha256]
        shards = [
            [shard.num_documents, shard.num_sequences, shard.num_tokens, shard.bin_checksum, shard.idx_checksum]
            for shard in self.shards
        ]
        return str(xxhash.xxh3_128_hexdigest(orjson.dumps([seen, shards])))

    def expected_checksum(self) -> str:
        return str(xxhash.xxh3_128_hexdigest(orjson.dumps(dataclasses.replace(self, checksum=""))))


def make_manifest(
    *,
    vocab_size: int,
    dtype: str,
    eod_id: int | None,
    tokenizer: TokenizerRecord,
    sources: Iterable[Source],
    shards: Iterable[Shard],
    preparations: Iterable[Preparation] = (),
    metadata_keys: Sequence[str] = (),
) -> Manifest:
    """A manifest whose totals, fingerprint and checksum follow from its parts."""
    shards = tuple(shards)
    draft = Manifest(
        vocab_size=vocab_size,
        dtype=dtype,
        eod_id=eod_id,
        num_documents=sum(shard.num_documents for shard in shards),
        num_tokens=sum(shard.num_tokens for shard in shards),
        tokenizer=tokenizer,
        sources=tuple(sources),
        metadata_keys=tuple(metadata_keys),
        preparations=tuple(preparations),
        shards=shards,
        fingerprint="",
        checksum="",
    )
    draft = dataclasses.replace(draft, fingerprint=draft.expected_fingerprint())
    return dataclasses.replace(draft, checksum=draft.expected_checksum())


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `folder/manifest.json`, whole or not at all."""
    with replacing(folder / FILE_NAME) as temporary:
        temporary.write_bytes(to_json(manifest))


def load_manifest(folder: Path) -> Manifest:
    """The manifest of the data set in `folder`, after a check that each file it names is there in the size it states.

    Raises:
        DataError: there is no data set, the manifest is malformed, or a shard is missing, cut or grown.
    """
    manifest = read_manifest(folder)
    for problems in size_problems(folder, manifest).values():
        raise DataError(f"{problems[0]}. Tokenize again, or restore the file.")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the data set in `folder`; its shards are not looked at.

    Raises:
        DataError: there is no data set, or the manifest is malformed.
    """
    path = folder / FILE_NAME
    try:
        content = orjson.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{folder} is not a data set: {FILE_NAME} cannot be read ({error.strerror}). Make one with `pretrain "
            "data tokenize`; one that was interrupted has no manifest yet: give the same command again."
        ) from error
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}. {REMEDY}") from error
    if isinstance(content, dict) and content.get("format_version") != FORMAT_VERSION:
        found = content.get("format_version")
        raise DataError(f"{path}: format_version={found!r} is not readable; this version reads {FORMAT_VERSION}.")
    try:
        manifest: Manifest = typed(content, Manifest, str(path))
    except DataError as error:
        raise DataError(f"{error} {REMEDY}") from error
    return manifest


def size_problems(folder: Path, manifest: Manifest) -> dict[Shard, list[str]]:
    """What is missing, cut or grown, by shard; shards whose files have their sizes are not in it.

    The folder is listed once, so that thousands of shards take a fraction of a second.
    """
    try:
        with os.scandir(folder) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error
    found = {shard: list(_size_problems_of(folder, shard, sizes)) for shard in manifest.shards}
    return {shard: problems for shard, problems in found.items() if problems}


def _size_problems_of(folder: Path, shard: Shard, sizes: Mapping[str, int]) -> Iterator[str]:
    for name, expected in (
        (f"{shard.name}.bin", shard.bin_bytes),
        (f"{shard.name}.idx", idx_bytes(shard.num_sequences, shard.num_documents)),
    ):
        size = sizes.get(name)
        if size != expected:
            state = "is missing" if size is None else f"has {size} bytes"
            yield f"{folder}/{name} {state}, its manifest says {expected} bytes"
    if shard.metadata_checksum is not None:
        path = metadata_path(folder, shard.name)
        if path.name not in sizes:
            yield f"{path} is missing"
