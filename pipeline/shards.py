"""Which shards a path in the run config names: a data set, one of its shards, a glob, or pairs of other programs."""

import dataclasses
import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xxhash

from data_prep.format import IndexHeader, bin_path, idx_path, read_header
from data_prep.manifest import FILE_NAME as MANIFEST
from data_prep.manifest import Manifest, load_manifest
from pipeline.errors import DataError

PAIR_SUFFIXES = (".bin", ".idx")
SAMPLED_BLOCKS, SAMPLED_BYTES = 16, 4096  # of each file of a pair without manifest, for its fingerprint


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One .bin/.idx pair.

    Attributes:
        fingerprint: equal for equal content: of its checksums in the manifest; without one, of samples of its bytes.
    """

    folder: Path
    name: str
    dtype: str
    num_sequences: int
    num_documents: int
    num_tokens: int
    fingerprint: str

    @property
    def prefix(self) -> Path:
        return self.folder / self.name


@dataclass(frozen=True, kw_only=True)
class ShardSet:
    """The shards that one path names, in their order.

    Attributes:
        vocab_size, tokenizer_sha256, tokenizer: what the manifest says; None without one.
        eod_id: ends each document; None if documents are not ended by one, or if nothing says so.
        highest_id: the highest of the ids that were looked at in pairs without a manifest; -1 if there are none.
        fingerprint: equal for equal tokens in the same order.
    """

    path: str
    shards: tuple[ShardFile, ...]
    dtype: str
    vocab_size: int | None
    eod_id: int | None
    tokenizer: Path | None
    tokenizer_sha256: str | None
    highest_id: int
    fingerprint: str

    @property
    def num_tokens(self) -> int:
        return sum(shard.num_tokens for shard in self.shards)

    @property
    def num_documents(self) -> int:
        return sum(shard.num_documents for shard in self.shards)

    @property
    def has_sentences(self) -> bool:
        """Whether documents were cut into sentences, each a sequence of its own."""
        return any(shard.num_sequences > shard.num_documents for shard in self.shards)


def find_shards(path: str) -> ShardSet:
    """The shards that `path` names.

    That is a folder with a manifest; a folder of pairs; PREFIX, PREFIX.bin or PREFIX.idx of one pair; or a pattern of
    any of these, in the order of their names. Of a pair whose folder has a manifest that names it, the manifest counts.

    Opening looks at the sizes of all files and at the ends of each index, so that thousands of shards, and any number
    of documents, take less than a second.

    Raises:
        DataError: nothing is there, a file is missing, cut or grown, or the shards do not belong together.
    """
    try:
        return _find(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error


def _find(path: str) -> ShardSet:
    is_pattern = glob.has_magic(path) and not Path(path).exists()
    matches = sorted(glob.glob(path, recursive=True)) if is_pattern else [path]
    if not matches:
        raise DataError(f"no file or folder matches {path}. Check the pattern.")
    parts = [_part(Path(match)) for match in _without_pair_halves(matches)]
    if not parts:
        raise DataError(f"{path} matches no folder and no .bin/.idx pair. Check the pattern.")
    return _joined(path, parts)


def _without_pair_halves(matches: Iterable[str]) -> list[str]:
    """Each match once: a pattern that matches both files of a pair names it once, and others' files not at all."""
    if len(matches := list(matches)) == 1:
        return matches
    found: dict[str, None] = {}
    for match in matches:
        file = Path(match)
        if file.suffix in PAIR_SUFFIXES:
            found[str(file.with_suffix(""))] = None
        elif file.is_dir():
            found[match] = None
    return list(found)


def _part(path: Path) -> ShardSet:
    if path.is_dir():
        if (path / MANIFEST).exists():
            return _of_manifest(path, load_manifest(path))
        names = sorted(file.stem for file in path.glob("*.idx"))
        if not names:
            load_manifest(path)  # says that this is no data set, and what to do
        return _joined(str(path), [_of_pair(path / name) for name in names])
    prefix = path.with_suffix("") if path.suffix in PAIR_SUFFIXES else path
    if not any(prefix.with_name(prefix.name + suffix).exists() for suffix in PAIR_SUFFIXES):
        raise DataError(
            f"{path} is neither a data set nor a .bin/.idx pair: there is no such folder and no {prefix.name}.idx. "
            "Check the path, on every machine of the run."
        )
    if (prefix.parent / MANIFEST).exists():
        manifest = load_manifest(prefix.parent)
        own = [shard for shard in manifest.shards if shard.name == prefix.name]
        if own:
            return _of_manifest(prefix.parent, dataclasses.replace(manifest, shards=tuple(own)))
    return _of_pair(prefix)


def _of_manifest(folder: Path, manifest: Manifest) -> ShardSet:
    shards = []
    for shard in manifest.shards:
        header = read_header(idx_path(folder, shard.name))
        file = _shard_file(folder, shard.name, header, f"{shard.bin_checksum}{shard.idx_checksum}")
        found = file.dtype, file.num_sequences, file.num_documents, file.num_tokens, header.bin_bytes
        expected = manifest.dtype, shard.num_sequences, shard.num_documents, shard.num_tokens, shard.bin_bytes
        if found != expected:
            raise DataError(
                f"{file.prefix}.idx describes {file.num_tokens} {file.dtype} tokens in {file.num_documents} documents, "
                f"its manifest {shard.num_tokens} {manifest.dtype} tokens in {shard.num_documents}: they do not belong "
                f"together. Run `pretrain data verify {folder}`."
            )
        shards.append(file)
    return ShardSet(
        path=str(folder),
        shards=tuple(shards),
        dtype=manifest.dtype,
        vocab_size=manifest.vocab_size,
        eod_id=manifest.eod_id,
        tokenizer=manifest.tokenizer_path(folder),
        tokenizer_sha256=manifest.tokenizer.sha256,
        highest_id=-1,
        fingerprint=_digest([manifest.eod_id, manifest.tokenizer.sha256, *(file.fingerprint for file in shards)]),
    )


def _of_pair(prefix: Path) -> ShardSet:
    """A pair without a manifest: what can be known of it by a few small reads."""
    header = read_header(idx_path(prefix.parent, prefix.name))
    path = bin_path(prefix.parent, prefix.name)
    size = path.stat().st_size if path.is_file() else None
    if size != header.bin_bytes:
        state = "is missing" if size is None else f"has {size} bytes"
        raise DataError(f"{path} {state}, but its .idx describes {header.bin_bytes} bytes. Restore the pair.")
    if header.dtype.name not in ("uint16", "int32"):
        raise DataError(f"{path} holds {header.dtype.name} tokens; uint16 and int32 can be read. Tokenize it again.")
    blocks = list(_sampled(path, size))
    ids = np.concatenate([np.frombuffer(block, header.dtype).astype(np.int64) for block in blocks])
    if ids.min(initial=0) < 0:
        raise DataError(f"{path} holds negative token ids: it was overwritten, or is no file of tokens. Restore it.")
    sampled = [*blocks, *_sampled(idx_path(prefix.parent, prefix.name), None)]
    file = _shard_file(prefix.parent, prefix.name, header, str(xxhash.xxh3_128_hexdigest(b"".join(sampled))))
    return ShardSet(
        path=str(prefix),
        shards=(file,),
        dtype=file.dtype,
        vocab_size=None,
        eod_id=None,
        tokenizer=None,
        tokenizer_sha256=None,
        highest_id=int(ids.max(initial=-1)),
        fingerprint=_digest([file.num_sequences, file.num_documents, file.num_tokens, file.fingerprint]),
    )


def _sampled(path: Path, size: int | None) -> Iterator[bytes]:
    """Blocks at even distances, the first and the last ones included."""
    size = path.stat().st_size if size is None else size
    with path.open("rb", buffering=0) as file:
        last = max(size - SAMPLED_BYTES, 0)
        for number in range(SAMPLED_BLOCKS):
            file.seek(last * number // (SAMPLED_BLOCKS - 1) // 4 * 4)
            yield file.read(SAMPLED_BYTES)


def _shard_file(folder: Path, name: str, header: IndexHeader, fingerprint: str) -> ShardFile:
    return ShardFile(
        folder=folder,
        name=name,
        dtype=header.dtype.name,
        num_sequences=header.num_sequences,
        num_documents=header.num_boundaries - 1,
        num_tokens=header.bin_bytes // header.dtype.itemsize,
        fingerprint=fingerprint,
    )


def _joined(path: str, parts: list[ShardSet]) -> ShardSet:
    """Several sets as one."""
    first = parts[0]
    for part in parts[1:]:
        for what in ("dtype", "vocab_size", "eod_id", "tokenizer_sha256"):
            if getattr(part, what) != getattr(first, what):
                raise DataError(
                    f"{path} names shards that do not belong together: {what} is {getattr(first, what)} in "
                    f"{first.path} and {getattr(part, what)} in {part.path}. Name them as sources of their own."
                )
    if len(parts) == 1:
        return dataclasses.replace(first, path=path)
    seen: dict[str, str] = {}
    for part in parts:
        for shard in part.shards:
            if shard.fingerprint in seen:
                raise DataError(
                    f"{path} names one shard twice: {shard.prefix} holds what {seen[shard.fingerprint]} holds. Name "
                    "each data set once: its folder, or its shards."
                )
        seen |= {shard.fingerprint: str(shard.prefix) for shard in part.shards if shard.num_tokens}
    return dataclasses.replace(
        first,
        path=path,
        shards=tuple(shard for part in parts for shard in part.shards),
        highest_id=max(part.highest_id for part in parts),
        fingerprint=_digest([part.fingerprint for part in parts]),
    )


def _digest(parts: list[Any]) -> str:
    return str(xxhash.xxh3_128_hexdigest(orjson.dumps(parts)))
