"""Text to a data set: what is in it, and that it is there whole or not at all."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_prep import tokenize as job
from data_prep.errors import DataError
from data_prep.format import open_shard
from data_prep.manifest import Manifest, load_manifest
from data_prep.tokenize import tokenize
from data_prep.tokenizers import Tokenizer
from data_prep.verify import verify

TEXTS = [f"Document {i} holds text.\n" + "More of it. " * (i % 7) for i in range(200)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, ""]))
    return path


def documents(folder: Path, manifest: Manifest) -> Iterator[np.ndarray]:
    for shard in manifest.shards:
        tokens, index = open_shard(folder, shard.name)
        ends = np.cumsum(index.lengths)
        yield from np.split(tokens, ends[:-1])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("append_eod", [True, False])
@pytest.mark.parametrize("shard_tokens", [1, 500, 10**9])
def test_every_document_is_there_in_its_order(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, append_eod: bool, shard_tokens: int
) -> None:
    out = tmp_path / "out"
    manifest = tokenize(
        inputs=[corpus], tokenizer_folder=tokenizer.folder, out=out, append_eod=append_eod, shard_tokens=shard_tokens
    )
    ending = [tokenizer.eod_id] if append_eod else []
    expected = [[*ids.tolist(), *ending] for ids in tokenizer.encode_batch(TEXTS)]
    assert [ids.tolist() for ids in documents(out, manifest)] == expected
    assert manifest == load_manifest(out) == verify(out)
    assert (manifest.num_documents, manifest.num_tokens) == (len(TEXTS), sum(map(len, expected)))
    assert manifest.num_text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert manifest.eod_id == (tokenizer.eod_id if append_eod else None)
    assert manifest.dtype == "uint16"
    assert all(shard.num_tokens >= shard_tokens for shard in manifest.shards[:-1])
    assert len(manifest.shards) == {1: len(TEXTS), 10**9: 1}.get(shard_tokens, len(manifest.shards))


def test_bytes_do_not_depend_on_batches(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=tmp_path / "one")
    monkeypatch.setattr(job, "BATCH_CHARACTERS", 100)
    tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_relative_tokenizer_is_found_from_the_data_set(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tokenizer.folder.parent)
    manifest = tokenize(inputs=[corpus], tokenizer_folder=Path(tokenizer.folder.name), out=tmp_path / "out")
    assert not Path(manifest.tokenizer.path).is_absolute()
    monkeypatch.chdir("/")
    assert manifest.tokenizer_folder(tmp_path / "out").samefile(tokenizer.folder)
    assert manifest.tokenizer.sha256 == tokenizer.sha256


def test_no_text_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for content in ("", "\n\n", '{"text": ""}\n'):
        (tmp_path / "empty.jsonl").write_text(content)
        with pytest.raises(DataError, match="hold no text"):
            tokenize(inputs=[tmp_path / "empty.jsonl"], tokenizer_folder=tokenizer.folder, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"missing\.txt cannot be read"):
        tokenize(inputs=[tmp_path / "missing.txt"], tokenizer_folder=tokenizer.folder, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("existed", [True, False])
def test_a_bad_record_leaves_the_folder_as_it_was(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, existed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "BATCH_CHARACTERS", 100)
    corpus.write_bytes(corpus.read_bytes() + b"nonsense\n")
    out = tmp_path / "out"
    if existed:
        out.mkdir()
    with pytest.raises(DataError, match=r"corpus.jsonl:202 is not JSON"):
        tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=out, shard_tokens=100)
    assert list(out.iterdir()) == [] if existed else not out.exists()


def test_occupied_folders_are_refused(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=out)
    before = files(out)
    with pytest.raises(DataError, match="holds a data set already"):
        tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=out)
    assert files(out) == before
    with pytest.raises(DataError, match=r"holds other files \(corpus.jsonl"):
        tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=tmp_path)
    with pytest.raises(DataError, match="is a file"):
        tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=corpus)
    with pytest.raises(DataError, match="cannot be made"):
        tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=corpus / "below")


def test_two_jobs_do_not_write_one_folder(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    out.mkdir()
    other = os.open(out, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(DataError, match="being written by another process"):
        tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=out)
    os.close(other)
    tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=out)


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("data_prep.writer.os.fsync", full)
    with pytest.raises(DataError, match="out cannot be written: No space left on device"):
        tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=tmp_path / "out", shard_tokens=100)
    assert not (tmp_path / "out").exists()


def test_a_killed_job_is_no_data_set_and_is_done_anew(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    code = (
        "import sys, time; from pathlib import Path; from data_prep import tokenize, writer\n"
        "commit = writer.ShardWriter.commit\n"
        "writer.ShardWriter.commit = lambda self: (commit(self), time.sleep(0.02))[0]\n"
        "corpus, tokenizer, out = map(Path, sys.argv[1:])\n"
        "tokenize.tokenize(inputs=[corpus], tokenizer_folder=tokenizer, out=out, shard_tokens=100)"
    )
    out, reference = tmp_path / "out", tmp_path / "reference"
    child = subprocess.Popen([sys.executable, "-c", code, corpus, tokenizer.folder, out])
    while not (out / "shard_00003.idx").exists() and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    with pytest.raises(DataError, match="is not a data set"):
        load_manifest(out)
    (out / f".manifest.json.{child.pid}.tmp").touch()  # as if it was killed while it wrote that
    for folder in (out, reference):
        tokenize(inputs=[corpus], tokenizer_folder=tokenizer.folder, out=folder, shard_tokens=100)
    assert files(out) == files(reference)
