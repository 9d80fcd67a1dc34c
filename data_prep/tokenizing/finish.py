"""The end of a tokenizing job: when every unit is committed, the manifest makes the folder a data set."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from data_prep.accounting import Counters
from data_prep.atomic import remove_abandoned
from data_prep.engine.engine_choice import EngineRecord
from data_prep.engine.engines import REFERENCE_PACKAGES
from data_prep.errors import DataError
from data_prep.manifest import FILE_NAME, Manifest, Preparation, Source, load_manifest, make_manifest, save_manifest
from data_prep.text import standard_input
from data_prep.text.inputs import stat
from data_prep.tokenizer.special_tokens import SpecialNames
from data_prep.tokenizing.commits import Commit, read_commit
from data_prep.tokenizing.job import FILE_NAME as JOB_FILE
from data_prep.tokenizing.job import WORK_FOLDER, Job, Request, publish
from data_prep.tokenizing.options import Options
from data_prep.tokenizing.unit_documents import UnitDocuments
from data_prep.tokenizing.worker import is_done


def finish(out: Path, job: Job, options: Options) -> Manifest | None:
    """Write the manifest of the job in `out`, unless it is there, and remove what only the job needed.

    Returns:
        The manifest; None if units are not done yet.

    Raises:
        DataError: the input changed meanwhile, or holds no document.
    """
    config_hash = job.request.config_hash
    commits = []
    for unit in job.request.units():
        commit = read_commit(out, unit.name, config_hash=config_hash)
        if commit is None or not is_done(commit, options):
            return None
        commits.append(commit)
    refuse_changed_input(out, job.request)
    manifest = _manifest(job, commits)
    if not manifest.num_documents:
        _remove_spool(job)
        raise DataError(
            f"the input files ({len(job.request.files)}) hold no text: there is nothing to tokenize "
            f"({describe(manifest.preparations[0].counters)}). Check --input, and remove {out}."
        )
    if not (out / JOB_FILE).exists():
        publish(job, out)  # a start that was stopped before anything was done may have removed it
    if not _is_saved(manifest, out):
        save_manifest(manifest, out)
    shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
    remove_abandoned(out)
    _remove_spool(job)
    return manifest


def _remove_spool(job: Job) -> None:
    """Remove the copy of standard input."""
    if job.request.sources == (standard_input.MARK,):
        Path(job.request.files[0].path).unlink(missing_ok=True)


def refuse_changed_input(out: Path, request: Request) -> None:
    """Raise DataError if a file is not what the committed units have read.

    A file of the planned size and time is taken for unchanged. Of one with another time alone, the units that are
    committed are read again and their checksums compared.
    """
    touched = set()
    for index, file in enumerate(request.files):
        found = stat(file.path)
        if found.st_size != file.size:
            raise DataError(f"{file.path} changed: {file.size} bytes -> {found.st_size}. {_remedy(out)}")
        if found.st_mtime_ns != file.mtime_ns:
            touched.add(index)
    if not touched:
        return
    documents = UnitDocuments(request.config, request.files, SpecialNames(()), fails=False)
    for unit in request.units():
        files = {piece.file for piece in unit.pieces} & touched
        commit = read_commit(out, unit.name, config_hash=request.config_hash) if files else None
        if commit is not None and documents.checksum(unit) != commit.input_checksum:
            names = ", ".join(request.files[file].path for file in sorted(files))
            raise DataError(f"{names} changed after {unit.name} was made of it (checksum). {_remedy(out)}")


def describe(counters: Counters) -> str:
    """The counts of a job in words."""
    parts = [f"{counters.lines:,} records", f"{counters.documents:,} documents"]
    parts += [f"{counters.empty:,} empty"] * bool(counters.empty)
    parts += [f"{count:,} {reason}" for reason, count in sorted(counters.filtered.items())]
    parts += [f"{counters.duplicate:,} duplicate"] * bool(counters.duplicate)
    parts += [f"{count:,} {kind.replace('_', ' ')}" for kind, count in sorted(counters.bad.items())]
    return ", ".join(parts)


def _remedy(out: Path) -> str:
    return f"Restore it, or remove {out} and start anew."


def _is_saved(manifest: Manifest, out: Path) -> bool:
    if not (out / FILE_NAME).exists():
        return False
    try:
        return load_manifest(out) == manifest
    except DataError:
        return False


def _manifest(job: Job, commits: Sequence[Commit]) -> Manifest:
    request = job.request
    preparation = Preparation(
        config_hash=request.config_hash,
        engine=f"{job.engine.name} {job.engine.version}",
        parity=_parity(job.engine),
        special_in_text=request.config.special_in_text,
        sentences=request.sentences,
        counters=Counters.sum(commit.counters for commit in commits),
    )
    return make_manifest(
        vocab_size=request.vocab_size,
        dtype=request.dtype,
        eod_id=request.eod_id,
        tokenizer=request.tokenizer,
        sources=[_source(name, number, commits) for number, name in enumerate(request.sources)],
        shards=[commit.shard for commit in commits],
        preparations=[preparation],
        metadata_keys=request.config.metadata_keys,
    )


def _parity(engine: EngineRecord) -> str:
    if engine.name in REFERENCE_PACKAGES:
        return "it defines the ids"
    return (
        f"equal to the reference's ids on {engine.num_stress_texts} stress texts and {engine.num_documents} documents"
    )


def _source(name: str, number: int, commits: Sequence[Commit]) -> Source:
    own = [commit for commit in commits if commit.source == number]
    return Source(
        name=name,
        num_documents=sum(commit.shard.num_documents for commit in own),
        num_tokens=sum(commit.shard.num_tokens for commit in own),
        num_text_bytes=sum(commit.num_text_bytes for commit in own),
    )
