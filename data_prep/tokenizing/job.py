"""A tokenizing job as data: what decides its bytes, what it reads, and whether a later start is the same job."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import xxhash

from data_prep.atomic import link, sync_file, sync_folder, temporary_beside
from data_prep.engine.engine_choice import EngineRecord
from data_prep.errors import DataError
from data_prep.manifest import SentenceRecord, TokenizerRecord
from data_prep.records import read_record, to_json
from data_prep.text.inputs import InputFile
from data_prep.text.parsing import Fields
from data_prep.text.readers import MAX_RECORD_BYTES, Reader
from data_prep.text.units import UNIT_BYTES, Unit, plan_units

FILE_NAME = "job.json"
WORK_FOLDER = "work"  # what is needed only while the job runs
FORMAT_VERSION = 2
REMEDY = "Remove the folder and start anew."


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """Everything but the input and the tokenizer that decides the bytes of a data set.

    Attributes:
        text_key, template, metadata_keys: see `parsing.Fields`.
        input_format: jsonl, txt or parquet for all files, or auto: by their names.
        txt_documents, max_record_bytes: see `readers.Reader`.
        unit_bytes: of text, that become one shard.
        min_characters: shorter documents are left out.
        append_eod: end each document with the tokenizer's end-of-document id.
        eod_token: takes the place of the tokenizer's own end-of-sequence token.
        special_in_text: names of special tokens in a text are ordinary text (split), become these tokens (encode), or
            make the record a bad one (error).
        dedup: leave out documents whose text was there before.
        split_sentences: the language, of `sentences.LANGUAGES`, whose sentences become a sequence each; None: each
            document becomes one.
    """

    text_key: str = "text"
    template: str | None = None
    metadata_keys: tuple[str, ...] = ()
    input_format: str = "auto"
    txt_documents: str = "file"
    max_record_bytes: int = MAX_RECORD_BYTES
    unit_bytes: int = UNIT_BYTES
    min_characters: int = 1
    append_eod: bool = True
    eod_token: str | None = None
    special_in_text: str = "split"
    dedup: bool = False
    split_sentences: str | None = None

    @property
    def fields(self) -> Fields:
        return Fields(text_key=self.text_key, template=self.template, metadata_keys=self.metadata_keys)

    def reader(self, *, keeps_damaged: bool) -> Reader:
        return Reader(
            fields=self.fields,
            txt_documents=self.txt_documents,  # type: ignore[arg-type] # by the command line
            max_record_bytes=self.max_record_bytes,
            keeps_damaged=keeps_damaged,
        )


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job that is asked for: what to read, and how.

    Attributes:
        sentence_library: name and version of what finds sentences; None if they are not asked for.
        files: the input, as it was when the job was planned.
    """

    config: TokenizeConfig
    tokenizer: TokenizerRecord
    vocab_size: int
    dtype: str
    eod_id: int | None
    sentence_library: str | None
    sources: tuple[str, ...]
    files: tuple[InputFile, ...]

    @property
    def config_hash(self) -> str:
        """xxh3-128 of all that decides the bytes but the input."""
        ids = [self.tokenizer.sha256, self.vocab_size, self.dtype, self.eod_id]
        return str(xxhash.xxh3_128_hexdigest(orjson.dumps([self.config, *ids, self.sentence_library])))

    @property
    def sentences(self) -> SentenceRecord | None:
        language, library = self.config.split_sentences, self.sentence_library
        return SentenceRecord(language=language, library=library) if language and library else None

    def units(self) -> list[Unit]:
        """The units of work, in order."""
        return plan_units(self.files, unit_bytes=self.config.unit_bytes, whole_txt=self.config.txt_documents == "file")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is in `job.json`, which the first process of a job writes and all others read."""

    format_version: int = FORMAT_VERSION
    request: Request
    engine: EngineRecord


def load_job(out: Path) -> Job:
    """The job whose data set is, or will be, in `out`.

    Raises:
        DataError: there is none, or its file is damaged.
    """
    path = out / FILE_NAME
    try:
        return read_record(path, Job, remedy=REMEDY)
    except OSError as error:
        raise DataError(f"{out} holds no tokenizing job: {FILE_NAME} cannot be read ({error.strerror}).") from error


def publish(job: Job, out: Path) -> bool:
    """Write the job for all processes, unless another one has done so.

    Returns:
        Whether this one has.
    """
    path = out / FILE_NAME
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(to_json(job))
        sync_file(temporary)
        is_new = link(temporary, path)
        sync_folder(out)
        return is_new
    finally:
        temporary.unlink(missing_ok=True)


def settings_changes(found: Request, asked: Request) -> list[str]:
    """What is asked for that the job found in its folder does not do, one line each."""
    changes = [
        f"{field.name}: {_shown(old)} -> {_shown(new)}"
        for field in dataclasses.fields(TokenizeConfig)
        if (old := getattr(found.config, field.name)) != (new := getattr(asked.config, field.name))
    ]
    if found.tokenizer.sha256 != asked.tokenizer.sha256:
        changes.append(f"tokenizer: sha256 {found.tokenizer.sha256[:12]} -> {asked.tokenizer.sha256[:12]}")
    elif found.eod_id != asked.eod_id:
        changes.append(f"id of the end of a document: {found.eod_id} -> {asked.eod_id}")
    if found.sentence_library != asked.sentence_library and found.config == asked.config:
        changes.append(f"what finds sentences: {found.sentence_library} -> {asked.sentence_library}")
    return changes


def input_changes(found: Request, asked: Request) -> list[str]:
    """Files that are new, gone, or of another size than when the job was planned, one line each.

    Another time alone is no change yet: `finish.refuse_changed_input` compares the content.
    """
    old = {file.path: file for file in found.files}
    new = {file.path: file for file in asked.files}
    changes = [f"{path} is new" for path in new if path not in old]
    changes += [f"{path} is no longer there" for path in old if path not in new]
    changes += [
        f"{path}: {old[path].size} bytes -> {file.size} bytes"
        for path, file in new.items()
        if path in old and old[path].size != file.size
    ]
    if not changes and (list(old) != list(new) or found.sources != asked.sources):
        changes.append("the same files, named by other patterns or in another order")
    return changes


def path_from(out: Path, path: Path) -> str:
    """As the manifest keeps it: a relative path counts from the data set, so that both can be moved together."""
    return str(path) if path.is_absolute() else os.path.relpath(path, out)


def _shown(value: Any) -> str:
    return orjson.dumps(value).decode()
