"""Starting a tokenizing job, or finding that the folder holds this very job already."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from data_prep.atomic import TEMPORARY, remove_abandoned
from data_prep.engine.engine_choice import AUTO, choose_and_open
from data_prep.engine.engines import Engine
from data_prep.errors import DataError
from data_prep.format import token_dtype
from data_prep.manifest import FILE_NAME as MANIFEST
from data_prep.manifest import TokenizerRecord
from data_prep.text import sentences, standard_input
from data_prep.text.inputs import describe, find_sources, is_pattern
from data_prep.text.parquet import check_columns, open_parquet
from data_prep.tokenizer import loading
from data_prep.tokenizer.special_tokens import SpecialNames
from data_prep.tokenizer.tokenizers import Tokenizer
from data_prep.tokenizing.commits import committed_names, read_commit
from data_prep.tokenizing.job import (
    FILE_NAME,
    FORMAT_VERSION,
    WORK_FOLDER,
    Job,
    Request,
    TokenizeConfig,
    input_changes,
    load_job,
    path_from,
    publish,
    settings_changes,
)
from data_prep.tokenizing.quarantine import FOLDER as QUARANTINE_FOLDER
from data_prep.tokenizing.stopping import Stop
from data_prep.tokenizing.unit_documents import UnitDocuments

MAX_SHOWN = 20  # changes in a message
FIRST_BATCHES = 4  # of documents that engines are compared on; `choose_engine` takes what it has time for


@dataclass(frozen=True)
class Joined:
    """A job, and what was opened to plan it.

    Attributes:
        engine: None if the job was planned by an earlier start.
        is_new: this start has planned it.
    """

    job: Job
    tokenizer: Tokenizer
    engine: Engine | None
    is_new: bool


def join(
    *, inputs: Sequence[str], tokenizer: Path, out: Path, config: TokenizeConfig, engine: str, stop: Stop
) -> Joined:
    """The job in `out`, planned now unless it is there.

    Raises:
        DataError: an input or the tokenizer is at fault, `out` holds something else, or a job with other settings or
            other input; names what differs.
    """
    if config.split_sentences is not None:
        sentences.refuse_unknown(config.split_sentences)
    _refuse_foreign(out)
    out.mkdir(parents=True, exist_ok=True)
    remove_abandoned(out)
    reference = loading.load(tokenizer)
    sources = _sources(inputs, out, reference.folder, config, stop)
    asked = _request(inputs, sources, reference, path_from(out, tokenizer), config)
    opened: Engine | None = None
    is_new = False
    if not (out / FILE_NAME).exists():
        texts = [text for batch in islice(_batches(asked), FIRST_BATCHES) for text in batch]
        record, opened = choose_and_open(engine, reference, texts)
        is_new = publish(Job(request=asked, engine=record), out)
    found = load_job(out)
    _refuse_other_job(found, asked, out, reference.kind if engine == "hf" else engine)
    stop.check()
    return Joined(found, reference, opened if opened and opened.name == found.engine.name else None, is_new)


def undo(out: Path) -> None:
    """Remove a job that this start has planned and that has failed, if nothing of it is done: another may be next."""
    with suppress(OSError, DataError):  # what went wrong before is to be told, not this
        config_hash = load_job(out).request.config_hash
        names = list(committed_names(out))
        commits = (read_commit(out, name, config_hash=config_hash) for name in names)
        if any(commit and commit.shard.num_documents for commit in commits):
            return
        work = out / WORK_FOLDER
        if work.is_dir() and any(work.iterdir()):  # others work on it, or documents were hashed
            return
        for name in names:
            for path in out.glob(f"{name}.*"):
                path.unlink(missing_ok=True)
        for folder in (work, out / QUARANTINE_FOLDER):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (out / FILE_NAME, *out.glob("stdin.*")):
            path.unlink(missing_ok=True)


def _request(
    inputs: Sequence[str], sources: list[list[Path]], tokenizer: Tokenizer, path: str, config: TokenizeConfig
) -> Request:
    files = tuple(describe(sources, kind=config.input_format))
    if {file.kind for file in files} == {"txt"} and (config.template is not None or config.metadata_keys):
        raise DataError("--template and --keep need records with fields, and the input is plain text. Leave them out.")
    for file in files:
        if file.kind == "parquet":
            with open_parquet(file.path) as opened:
                check_columns(opened, file.path, config.fields.columns, config.fields.text_keys)
    return Request(
        config=config,
        tokenizer=TokenizerRecord(path=path, sha256=tokenizer.sha256),
        vocab_size=tokenizer.vocab_size,
        dtype=token_dtype(tokenizer.vocab_size).name,
        eod_id=_eod_id(tokenizer, config) if config.append_eod else None,
        sentence_library=sentences.library() if config.split_sentences else None,
        sources=tuple(inputs),
        files=files,
    )


def _sources(inputs: Sequence[str], out: Path, tokenizer: Path, config: TokenizeConfig, stop: Stop) -> list[list[Path]]:
    """The files of each pattern, but those of this job itself and of its tokenizer, which may lie among them."""
    if standard_input.MARK not in inputs:
        own = (out.resolve(), tokenizer.resolve())
        sources = [
            [path for path in paths if not any(path.resolve().is_relative_to(folder) for folder in own)]
            if is_pattern(pattern)
            else paths
            for pattern, paths in zip(inputs, find_sources(inputs), strict=True)
        ]
        if not any(sources):
            raise DataError(f"--input {' '.join(inputs)} matches only files of --out and --tokenizer. Check the path.")
        return sources
    path = standard_input.spool_path(out, config.input_format)
    if len(inputs) > 1 or config.input_format == "parquet":
        raise DataError(
            "--input - reads one stream of JSON lines or text. Give files in a job of their own, and merge."
        )
    if (out / MANIFEST).exists() and not path.exists():
        raise DataError(
            f"--out {out} holds a data set already, and standard input can be read once. Give another folder."
        )
    standard_input.spool(path, stop.check)
    return [[path]]


def _eod_id(tokenizer: Tokenizer, config: TokenizeConfig) -> int:
    token = config.eod_token
    if token is None:
        if tokenizer.eod_id is None:
            raise DataError(
                f"{tokenizer.path} has no end-of-sequence token, which ends documents. Name one with --eod-token, or "
                "give --no-eod."
            )
        return tokenizer.eod_id
    if token in tokenizer.special_tokens:
        return tokenizer.special_tokens[token]
    [ids] = tokenizer.encode_batch([token])
    if len(ids) != 1:
        raise DataError(
            f"--eod-token {token!r} is not one token of {tokenizer.path}, but {len(ids)}. Name one that is."
        )
    return int(ids[0])


def _batches(request: Request) -> Iterator[list[str]]:
    """The first documents, read as the workers will, whatever is wrong with some of them."""
    documents = UnitDocuments(request.config, request.files, SpecialNames(()), fails=False)
    for unit in request.units():
        for batch in documents.read(unit):
            if batch.texts:
                yield batch.texts


def _refuse_foreign(out: Path) -> None:
    """Raise DataError if `out` holds anything that is not of a tokenizing job."""
    if not out.exists() or (out / FILE_NAME).exists():
        return
    if not out.is_dir():
        raise DataError(f"--out {out} is a file. Give a folder that is new or empty.")
    if (out / MANIFEST).exists():
        raise DataError(f"--out {out} holds a data set already, and no {FILE_NAME} to go on with. Give another folder.")
    foreign = [path.name for path in sorted(out.iterdir()) if not _is_own(path.name)]
    if foreign:
        raise DataError(f"--out {out} holds other files ({foreign[0]} ...). Give a folder that is new or empty.")


def _is_own(name: str) -> bool:
    return name == WORK_FOLDER or name.startswith("stdin.") or (name.startswith(".") and name.endswith(TEMPORARY))


def _refuse_other_job(found: Job, asked: Request, out: Path, engine: str) -> None:
    changes = settings_changes(found.request, asked)
    if engine not in (AUTO, found.engine.name):
        changes.append(f"engine: {found.engine.name} -> {engine}")
    if changes:
        raise DataError(_refusal(out, "other settings", changes, "Give the same settings, or another --out."))
    if changes := input_changes(found.request, asked):
        raise DataError(_refusal(out, "other input", changes, "Restore the input, or give another --out."))
    if _without_times(found.request) != _without_times(asked) or found.format_version != FORMAT_VERSION:
        raise DataError(f"{out / FILE_NAME} is damaged, or was made by another version. Remove {out} and start anew.")


def _without_times(request: Request) -> Request:
    """What must be equal in two starts of a job; the tokenizer may have moved."""
    files = tuple(replace(file, mtime_ns=0) for file in request.files)
    return replace(request, files=files, tokenizer=replace(request.tokenizer, path=""))


def _refusal(out: Path, what: str, changes: Sequence[str], remedy: str) -> str:
    shown = [*changes[:MAX_SHOWN], *([f"and {len(changes) - MAX_SHOWN} more"] if len(changes) > MAX_SHOWN else [])]
    return f"--out {out} holds a job with {what}:\n  " + "\n  ".join(shown) + f"\n{remedy}"
