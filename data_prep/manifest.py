"""What a data set holds: `manifest.json`, written last, so that a folder with one is complete."""

import dataclasses
import json
import types
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import xxhash

from data_prep.atomic import replacing
from data_prep.errors import DataError
from data_prep.format import bin_path, idx_bytes, idx_path

FILE_NAME = "manifest.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One .bin/.idx pair. Checksums are xxh3-128 in hex."""

    name: str
    num_documents: int
    num_tokens: int
    bin_bytes: int
    bin_checksum: str
    idx_checksum: str


@dataclass(frozen=True, kw_only=True)
class TokenizerRecord:
    """The tokenizer that made the ids.

    Attributes:
        path: its folder; a relative one counts from the folder of the data set.
        sha256: of its model file, in hex; `Tokenizer.sha256` of the same tokenizer is equal.
    """

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A data set, described.

    Attributes:
        dtype: numpy's name of the token ids' type.
        eod_id: the id that ends each document; None if documents are not ended by one.
        num_tokens: in all shards, the end-of-document tokens included.
        num_text_bytes: UTF-8 bytes of the text that was tokenized.
        fingerprint: xxh3-128 over all other fields but the tokenizer's path: equal for equal data.
    """

    format_version: int = FORMAT_VERSION
    vocab_size: int
    dtype: str
    eod_id: int | None
    num_documents: int
    num_tokens: int
    num_text_bytes: int
    tokenizer: TokenizerRecord
    shards: tuple[Shard, ...]
    fingerprint: str

    def tokenizer_folder(self, folder: Path) -> Path:
        """Where the tokenizer lies, for a data set in `folder`."""
        return folder / self.tokenizer.path

    def expected_fingerprint(self) -> str:
        content = dataclasses.asdict(self)
        del content["fingerprint"], content["tokenizer"]["path"]
        return str(xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode()))


def make_manifest(
    *,
    vocab_size: int,
    dtype: str,
    eod_id: int | None,
    num_text_bytes: int,
    tokenizer: TokenizerRecord,
    shards: Iterable[Shard],
) -> Manifest:
    """A manifest whose totals and fingerprint follow from its shards."""
    shards = tuple(shards)
    draft = Manifest(
        vocab_size=vocab_size,
        dtype=dtype,
        eod_id=eod_id,
        num_documents=sum(shard.num_documents for shard in shards),
        num_tokens=sum(shard.num_tokens for shard in shards),
        num_text_bytes=num_text_bytes,
        tokenizer=tokenizer,
        shards=shards,
        fingerprint="",
    )
    return dataclasses.replace(draft, fingerprint=draft.expected_fingerprint())


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `folder/manifest.json`, whole or not at all."""
    with replacing(folder / FILE_NAME) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(manifest), indent=2) + "\n", encoding="utf-8")


def load_manifest(folder: Path) -> Manifest:
    """The manifest of the data set in `folder`, after a check that each file it names is there in the size it states.

    Raises:
        DataError: there is no data set, the manifest is malformed, or a shard is missing, cut or grown.
    """
    path = folder / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{folder} is not a data set: {FILE_NAME} cannot be read ({error.strerror}). "
            "Make one with `pretrain data tokenize`; one that was interrupted has no manifest."
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}. Tokenize again.") from error
    if isinstance(content, dict) and content.get("format_version") != FORMAT_VERSION:
        found = content.get("format_version")
        raise DataError(f"{path}: format_version={found!r} is not readable; this version reads {FORMAT_VERSION}.")
    manifest: Manifest = _typed(content, Manifest, str(path))
    for shard in manifest.shards:
        _check_size(bin_path(folder, shard.name), shard.bin_bytes)
        _check_size(idx_path(folder, shard.name), idx_bytes(shard.num_documents))
    return manifest


def _check_size(path: Path, expected: int) -> None:
    found = path.stat().st_size if path.is_file() else None
    if found != expected:
        state = "is missing" if found is None else f"has {found} bytes"
        raise DataError(f"{path} {state}, its manifest says {expected} bytes. Tokenize again, or restore the file.")


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value`, read from JSON, as the type `hint`; DataError names the place if it is something else."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        hints = get_type_hints(hint)
        if value.keys() != hints.keys():
            wrong = sorted(value.keys() ^ hints.keys())
            raise DataError(f"{where}: fields {wrong} are missing or unknown. Tokenize again.")
        return hint(**{name: _typed(value[name], hints[name], f"{where}: {name}") for name in hints})  # type: ignore[operator]
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_typed(item, get_args(hint)[0], f"{where}[{i}]") for i, item in enumerate(value))
    plain = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(value) not in plain:
        names = " or ".join(kind.__name__ for kind in plain)
        raise DataError(f"{where}: {value!r} is wrong because it is not {names}. Tokenize again.")
    return value
