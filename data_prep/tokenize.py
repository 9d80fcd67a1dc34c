"""The offline job: text files -> documents -> token ids -> shards, and a manifest when all of it is on the disk."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data_prep.atomic import TEMPORARY
from data_prep.errors import DataError
from data_prep.format import token_dtype
from data_prep.manifest import FILE_NAME, Manifest, Shard, TokenizerRecord, make_manifest, save_manifest
from data_prep.progress import progress
from data_prep.readers import read_documents, size_in_bytes
from data_prep.tokenizers import Tokenizer, load
from data_prep.writer import ShardWriter

SHARD_TOKENS = 2**28  # 0.5 GB of uint16: large enough to read in one sweep, small enough to copy again
BATCH_CHARACTERS = 1_000_000  # text in memory at a time; the engine runs a batch on all cores
OWN_FILES = ("shard_[0-9]*.bin", "shard_[0-9]*.idx", f"shard_[0-9]*{TEMPORARY}", f".{FILE_NAME}.*{TEMPORARY}")


def tokenize(
    *,
    inputs: Sequence[Path],
    tokenizer_folder: Path,
    out: Path,
    text_key: str = "text",
    append_eod: bool = True,
    shard_tokens: int = SHARD_TOKENS,
) -> Manifest:
    """Make the data set `out` from the text files `inputs`, in their order; empty texts are left out.

    Equal inputs and settings make equal bytes. Memory is bounded by the longest document. A job that fails or is
    interrupted removes what it wrote; after a kill the folder has no manifest, and the same call starts it anew.

    Args:
        append_eod: end each document with the tokenizer's end-of-document id.
        shard_tokens: a shard is closed by the document that reaches this many.

    Raises:
        DataError: an input is missing, malformed or empty, `out` is occupied, or the disk is full.
    """
    tokenizer = load(tokenizer_folder)
    total = sum(map(size_in_bytes, inputs))
    with _claimed(out), progress("tokenize", total=total) as shown:
        job = _Job(tokenizer, out, append_eod, shard_tokens)
        shards = tuple(job.shards(_batches(inputs, text_key, shown.update)))
        if not shards:
            raise DataError(f"the {len(inputs)} input files hold no text: there is nothing to tokenize. Check --input.")
        manifest = make_manifest(
            vocab_size=tokenizer.vocab_size,
            dtype=token_dtype(tokenizer.vocab_size).name,
            eod_id=tokenizer.eod_id if append_eod else None,
            num_text_bytes=job.num_text_bytes,
            tokenizer=TokenizerRecord(path=_path_from(out, tokenizer_folder), sha256=tokenizer.sha256),
            shards=shards,
        )
        save_manifest(manifest, out)
    return manifest


class _Job:
    """Encodes batches and cuts the stream of documents into shards."""

    def __init__(self, tokenizer: Tokenizer, out: Path, append_eod: bool, shard_tokens: int) -> None:
        self._tokenizer, self._out, self._shard_tokens = tokenizer, out, shard_tokens
        self._ending = np.array([tokenizer.eod_id] if append_eod else [], dtype=np.int32)
        self.num_text_bytes = 0

    def shards(self, batches: Iterator[list[str]]) -> Iterator[Shard]:
        documents = self._encoded(batches)
        pending = next(documents, None)
        dtype = token_dtype(self._tokenizer.vocab_size)
        for number in range(10**5):
            if pending is None:
                return
            with ShardWriter(self._out, f"shard_{number:05d}", dtype) as writer:
                while pending is not None and writer.num_tokens < self._shard_tokens:
                    writer.append(pending)
                    pending = next(documents, None)
                yield writer.commit()
        raise DataError(f"more than 10^5 shards of {self._shard_tokens} tokens are needed. Use larger ones.")

    def _encoded(self, batches: Iterator[list[str]]) -> Iterator[np.ndarray]:
        for batch in batches:
            self.num_text_bytes += sum(len(text.encode()) for text in batch)
            for tokens in self._tokenizer.encode_batch(batch):
                yield np.concatenate([tokens, self._ending])


def _batches(inputs: Sequence[Path], text_key: str, on_bytes: Callable[[int], object]) -> Iterator[list[str]]:
    """The texts that are not empty, some together, so that the tokenizer has work for all cores."""
    batch: list[str] = []
    characters = 0
    for path in inputs:
        for document in read_documents(path, text_key=text_key, on_bytes=on_bytes):
            if document.text:
                batch.append(document.text)
                characters += len(document.text)
            if characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


def _path_from(out: Path, tokenizer_folder: Path) -> str:
    """As the manifest keeps it: a relative path counts from the data set, so that both can be moved together."""
    return str(tokenizer_folder) if tokenizer_folder.is_absolute() else os.path.relpath(tokenizer_folder, out)


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """The folder `out` for this process alone; if the block fails, it is left as it was found."""
    existed = out.exists()
    _refuse_foreign(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"--out {out} cannot be made: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_own_files(out)
        yield
    except BlockingIOError as error:
        raise DataError(
            f"--out {out} is being written by another process. Wait for it, or give another folder."
        ) from error
    except BaseException as error:
        _remove_own_files(out)
        if not existed:
            with contextlib.suppress(OSError):  # somebody put a file there meanwhile
                out.rmdir()
        if isinstance(error, OSError):
            raise DataError(
                f"{out} cannot be written: {error.strerror or error}. Free or choose another disk."
            ) from error
        raise
    finally:
        os.close(lock)


def _refuse_foreign(out: Path) -> None:
    """Raise DataError if `out` holds anything but what an interrupted run of this job left."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"--out {out} is a file. Give a folder that is new or empty.")
    if (out / FILE_NAME).exists():
        raise DataError(f"--out {out} holds a data set already. Remove it, or give another folder.")
    known = {path for pattern in OWN_FILES for path in out.glob(pattern)}
    if foreign := sorted(set(out.iterdir()) - known):
        raise DataError(f"--out {out} holds other files ({foreign[0].name} ...). Give a folder that is new or empty.")


def _remove_own_files(out: Path) -> None:
    for pattern in OWN_FILES:
        for path in out.glob(pattern):
            path.unlink()
