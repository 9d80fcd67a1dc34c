"""Text to a data set: what is in it, that its bytes are a function of input and settings, and what is refused."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.data_sets.verify import verify
from data_prep.errors import DataError
from data_prep.format import open_shard
from data_prep.manifest import Manifest, load_manifest
from data_prep.tokenizer.tokenizers import Tokenizer
from data_prep.tokenizing import tokenize as tokenize_module
from data_prep.tokenizing.commits import read_commit
from data_prep.tokenizing.job import TokenizeConfig, load_job
from data_prep.tokenizing.options import Options
from data_prep.tokenizing.tokenize import tokenize

TEXTS = [f"Document {i} holds text.\n" + "More of it. " * (i % 7) for i in range(200)]
SKIP = Options(on_bad_record="skip")


def line(text: object) -> bytes:
    return orjson.dumps({"text": text}) + b"\n"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"".join(map(line, [*TEXTS, ""])))
    return path


def documents(folder: Path) -> Iterator[np.ndarray]:
    for shard in load_manifest(folder).shards:
        tokens, index = open_shard(folder, shard.name)
        yield from np.split(tokens, np.cumsum(index.lengths)[:-1]) if len(index.lengths) else ()


def texts_in(folder: Path, tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(ids[:-1]) for ids in documents(folder)]


def files(folder: Path) -> dict[str, bytes]:
    """All files of a data set but `job.json`, which names the engine's version."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "job.json"}


def make(out: Path, tokenizer: Tokenizer, *inputs: Path, **arguments: Any) -> Manifest:
    arguments = {"engine": "hf"} | arguments  # which needs no comparison
    manifest = tokenize(inputs=inputs, tokenizer=tokenizer.folder, out=out, **arguments).manifest
    assert manifest
    return manifest


@pytest.mark.parametrize("append_eod", [True, False])
@pytest.mark.parametrize("unit_bytes", [700, 10**9])
def test_every_document_is_there_in_its_order(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, append_eod: bool, unit_bytes: int
) -> None:
    out = tmp_path / "out"
    manifest = make(out, tokenizer, corpus, config=TokenizeConfig(append_eod=append_eod, unit_bytes=unit_bytes))
    ending = [tokenizer.eod_id] if append_eod else []
    expected = [[*ids.tolist(), *ending] for ids in tokenizer.encode_batch(TEXTS)]
    assert [ids.tolist() for ids in documents(out)] == expected
    assert manifest == load_manifest(out) == verify(out)
    assert (manifest.num_documents, manifest.num_tokens) == (len(TEXTS), sum(map(len, expected)))
    assert manifest.num_text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert manifest.eod_id == (tokenizer.eod_id if append_eod else None)
    assert manifest.dtype == "uint16"
    assert len(manifest.shards) == len(load_job(out).request.units())
    [preparation] = manifest.preparations
    assert preparation.counters.lines == len(TEXTS) + 1
    assert preparation.counters.empty == 1
    assert not (out / "work").exists()


def test_the_bytes_do_not_depend_on_workers_tasks_or_reads(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TokenizeConfig(unit_bytes=1000)
    make(tmp_path / "one", tokenizer, corpus, config=config)
    expected = files(tmp_path / "one")
    assert len(expected) > 30

    make(tmp_path / "workers", tokenizer, corpus, config=config, workers=2)
    assert files(tmp_path / "workers") == expected

    for index in (2, 0, 1):
        outcome = tokenize(
            inputs=[corpus],
            tokenizer=tokenizer.folder,
            out=tmp_path / "tasks",
            config=config,
            task=f"{index}/3",
            engine="hf",
        )
        assert (outcome.manifest is None) == (index != 1)
        assert (outcome.num_units_left > 0) == (index != 1)
    assert files(tmp_path / "tasks") == expected

    monkeypatch.setattr("data_prep.text.blocks.READ_BYTES", 37)
    make(tmp_path / "reads", tokenizer, corpus, config=config)
    assert files(tmp_path / "reads") == expected


def test_all_kinds_of_files_hold_the_same(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    from data_prep import zstd

    plain = corpus.read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain[:500]) + gzip.compress(plain[500:]))
    (tmp_path / "a.jsonl.zst").write_bytes(zstd.compress(plain[:500]) + zstd.compress(plain[500:]))
    table = pyarrow.table({"text": [*TEXTS, ""], "number": range(len(TEXTS) + 1)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    for name in ("corpus.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"):
        make(tmp_path / f"from {name}", tokenizer, tmp_path / name)
        assert texts_in(tmp_path / f"from {name}", tokenizer) == TEXTS
    manifest = make(tmp_path / "all", tokenizer, tmp_path / "*.parquet", tmp_path / "*.jsonl*")
    assert [source.num_documents for source in manifest.sources] == [len(TEXTS), 3 * len(TEXTS)]
    assert texts_in(tmp_path / "all", tokenizer) == TEXTS * 4


BAD_LINES = {
    "malformed_json": b'{"text": "a\n',
    "not_an_object": b"[1]\n",
    "missing_key": b'{"body": "a"}\n',
    "null": b'{"text": null}\n',
    "not_a_string": b'{"text": 7}\n',
    "invalid_utf8": b'{"text": "\xff"}\n',
    "too_long": line("x" * 2000),
    "special_token": line("an <|eos|> in it"),
}


@pytest.mark.parametrize("policy", ["skip", "quarantine"])
def test_every_bad_record_is_counted(tmp_path: Path, corpus: Path, tokenizer: Tokenizer, policy: str) -> None:
    corpus.write_bytes(b"".join([*map(line, TEXTS[:100]), *BAD_LINES.values(), *map(line, TEXTS[100:])]))
    out = tmp_path / "out"
    config = TokenizeConfig(max_record_bytes=1000, special_in_text="error", min_characters=26)
    manifest = make(out, tokenizer, corpus, config=config, options=Options(on_bad_record=policy))
    counters = manifest.preparations[0].counters
    kept = [text for text in TEXTS if len(text) >= 26]
    assert texts_in(out, tokenizer) == kept
    assert counters.bad == dict.fromkeys(BAD_LINES, 1)
    assert counters.filtered == {"shorter than 26 characters": len(TEXTS) - len(kept)}
    assert counters.lines == len(TEXTS) + len(BAD_LINES)
    assert counters.is_complete()
    commit = read_commit(out, "shard_00000", config_hash=load_job(out).request.config_hash)
    assert commit
    assert {offender.kind for offender in commit.offenders} == set(BAD_LINES)
    quarantined = [json.loads(one) for path in out.glob("quarantine/*") for one in path.read_bytes().splitlines()]
    assert {one["record"]["kind"] for one in quarantined} == (set(BAD_LINES) if policy == "quarantine" else set())
    verify(out)


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_record_ends_the_job_and_names_its_place(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, kind: str
) -> None:
    corpus.write_bytes(corpus.read_bytes() + BAD_LINES[kind])
    config = TokenizeConfig(unit_bytes=1000, max_record_bytes=1000, special_in_text="error")
    out = tmp_path / "out"
    with pytest.raises(DataError, match=rf"corpus\.jsonl.*: {kind.replace('_', ' ')}: .*--on-bad-record skip"):
        make(out, tokenizer, corpus, config=config)
    assert not (out / "manifest.json").exists()
    done = len(list(out.glob("shard_*.json")))
    assert done  # what was done before is kept, and the same job goes on with another policy
    manifest = make(out, tokenizer, corpus, config=config, options=SKIP)
    assert texts_in(out, tokenizer) == TEXTS
    assert manifest.preparations[0].counters.bad == {kind: 1}


def test_bad_records_that_were_skipped_are_quarantined_when_asked_for(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer
) -> None:
    corpus.write_bytes(corpus.read_bytes() + b"nonsense\n")
    out = tmp_path / "out"
    make(out, tokenizer, corpus, options=SKIP)
    before = (out / "shard_00000.bin").read_bytes()
    make(out, tokenizer, corpus, options=Options(on_bad_record="quarantine"))
    [found] = (out / "quarantine" / "shard_00000.jsonl").read_bytes().splitlines()
    assert json.loads(found)["raw"] == "nonsense"
    assert (out / "shard_00000.bin").read_bytes() == before
    verify(out)


def test_fields_joined_and_kept(tmp_path: Path, tokenizer: Tokenizer) -> None:
    records = [{"title": f"T{i}", "body": f"text {i}", "url": {"n": i}, "extra": 1} for i in range(20)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in records))
    table = pyarrow.table({key: [one[key] for one in records] for key in records[0]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    config = TokenizeConfig(template="# {title}\n{body}", metadata_keys=("url", "missing"))
    out = tmp_path / "jsonl"
    manifest = make(out, tokenizer, tmp_path / "a.jsonl", config=config)
    assert texts_in(out, tokenizer) == [f"# T{i}\ntext {i}" for i in range(20)]
    assert manifest.metadata_keys == ("url", "missing")
    verify(out)
    from data_prep.data_sets.cat import documents as cat

    assert [one.metadata for one in cat(out, first=3, count=2)] == [
        {"url": {"n": 3}, "missing": None},
        {"url": {"n": 4}, "missing": None},
    ]
    with pytest.raises(DataError, match=r"a\.parquet has no column 'missing' \(columns: title, body, url, extra\)"):
        make(tmp_path / "parquet", tokenizer, tmp_path / "a.parquet", config=config)
    config = TokenizeConfig(template="# {title}\n{body}", metadata_keys=("url",))
    make(tmp_path / "parquet", tokenizer, tmp_path / "a.parquet", config=config)
    assert texts_in(tmp_path / "parquet", tokenizer) == texts_in(out, tokenizer)
    with pytest.raises(DataError, match="is wrong: expected"):
        make(tmp_path / "wrong", tokenizer, tmp_path / "a.jsonl", config=TokenizeConfig(template="{title"))
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match="need records with fields"):
        make(tmp_path / "wrong", tokenizer, tmp_path / "a.txt", config=config)
    assert not (tmp_path / "wrong").exists()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.lists(
        st.sampled_from([*BAD_LINES.values(), *map(line, TEXTS[:5]), b"\n", b" \n", b"\xff", b"{}", b"\r\n"])
    ),
    unit_bytes=st.sampled_from([100, 10**6]),
    dedup=st.booleans(),
    split_sentences=st.sampled_from([None, "en"]),
)
def test_every_line_of_any_input_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: Tokenizer,
    content: list[bytes],
    unit_bytes: int,
    dedup: bool,
    split_sentences: str | None,
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    whole = line("always there") + b"".join(content)
    (folder / "a.jsonl").write_bytes(whole)
    config = TokenizeConfig(
        unit_bytes=unit_bytes,
        max_record_bytes=500,
        special_in_text="error",
        dedup=dedup,
        split_sentences=split_sentences,
    )
    manifest = make(folder / "out", tokenizer, folder / "a.jsonl", config=config, options=SKIP)
    counters = manifest.preparations[0].counters
    assert counters.lines == len(whole.removesuffix(b"\n").split(b"\n"))
    assert counters.is_complete()
    assert (counters.duplicate == 0) or dedup


def test_names_of_special_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_bytes(line("one <|eos|> two"))
    for policy, count in (("split", 1), ("encode", 2)):
        make(tmp_path / policy, tokenizer, tmp_path / "a.jsonl", config=TokenizeConfig(special_in_text=policy))
        [ids] = documents(tmp_path / policy)
        assert ids.tolist().count(tokenizer.eod_id) == count


def test_a_relative_tokenizer_is_found_from_the_data_set(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tokenizer.folder.parent)
    outcome = tokenize(inputs=[corpus], tokenizer=Path(tokenizer.folder.name), out=tmp_path / "out")
    assert outcome.manifest
    assert not Path(outcome.manifest.tokenizer.path).is_absolute()
    monkeypatch.chdir("/")
    assert outcome.manifest.tokenizer_path(tmp_path / "out").samefile(tokenizer.folder)
    assert outcome.manifest.tokenizer.sha256 == tokenizer.sha256


def test_no_text_is_refused_and_leaves_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for content in ("", "\n\n", '{"text": ""}\n'):
        (tmp_path / "empty.jsonl").write_text(content)
        with pytest.raises(DataError, match="hold no text"):
            make(tmp_path / "out", tokenizer, tmp_path / "empty.jsonl")
        assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"missing\.txt matches no file"):
        make(tmp_path / "out", tokenizer, tmp_path / "missing.txt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("existed", [True, False])
def test_a_job_without_a_document_leaves_the_folder_as_it_was(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, existed: bool
) -> None:
    corpus.write_bytes(b"nonsense\n" + corpus.read_bytes())
    out = tmp_path / "out"
    if existed:
        out.mkdir()
    with pytest.raises(DataError, match=r"corpus.jsonl:1, byte 0: malformed json"):
        make(out, tokenizer, corpus)
    assert list(out.iterdir()) == [] if existed else not out.exists()


def test_the_same_command_on_a_complete_data_set_changes_nothing(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer
) -> None:
    out = tmp_path / "out"
    make(out, tokenizer, corpus)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    make(out, tokenizer, corpus)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_what_is_cut_or_lost_is_made_again(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    config = TokenizeConfig(unit_bytes=1000)
    make(out, tokenizer, corpus, config=config)
    whole = files(out)
    (out / "shard_00001.bin").write_bytes(whole["shard_00001.bin"][:-2])
    (out / "shard_00002.idx").unlink()
    (out / "shard_00003.json").unlink()
    (out / "shard_00003.bin").write_bytes(b"x" * len(whole["shard_00003.bin"]))
    make(out, tokenizer, corpus, config=config)
    assert files(out) == whole
    (out / "shard_00004.json").write_bytes(whole["shard_00004.json"].replace(b'"lines": ', b'"lines": 1'))
    with pytest.raises(DataError, match=r"shard_00004\.json is damaged.*Delete it and give the same command again"):
        make(out, tokenizer, corpus, config=config)


def test_occupied_folders_are_refused(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"holds other files \(corpus.jsonl"):
        make(tmp_path, tokenizer, corpus)
    with pytest.raises(DataError, match="is a file"):
        make(corpus, tokenizer, corpus)
    with pytest.raises(DataError, match="cannot be written: Not a directory"):
        make(corpus / "below", tokenizer, corpus)
    assert list(tmp_path.iterdir()) == [corpus]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_key": "body"}, 'text_key: "text" -> "body"'),
        ({"unit_bytes": 999}, "unit_bytes: 1000 -> 999"),
        ({"append_eod": False}, "append_eod: true -> false"),
        ({"dedup": True}, "dedup: false -> true"),
    ],
)
def test_another_config_is_refused(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, change: dict[str, Any], message: str
) -> None:
    out = tmp_path / "out"
    make(out, tokenizer, corpus, config=TokenizeConfig(unit_bytes=1000))
    before = files(out)
    with pytest.raises(DataError, match=f"holds a job with other settings:\n  {message}\n"):
        make(out, tokenizer, corpus, config=TokenizeConfig(**({"unit_bytes": 1000} | change)))
    with pytest.raises(DataError, match="engine: sentencepiece -> gigatoken"):
        make(out, tokenizer, corpus, config=TokenizeConfig(unit_bytes=1000), engine="gigatoken")
    assert files(out) == before


def test_another_tokenizer_is_refused(
    tmp_path: Path, corpus: Path, any_tokenizer: Tokenizer, tokenizer: Tokenizer
) -> None:
    make(tmp_path / "out", tokenizer, corpus)
    with pytest.raises(DataError, match=r"tokenizer: sha256 \w+ -> \w+"):
        make(tmp_path / "out", any_tokenizer, corpus)


def test_changed_input_is_refused_by_size_and_content(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    config = TokenizeConfig(unit_bytes=1000)
    make(out, tokenizer, corpus, config=config)
    content = corpus.read_bytes()

    os.utime(corpus)  # touched, and not changed
    make(out, tokenizer, corpus, config=config)

    corpus.write_bytes(content.replace(b"Document 150", b"Document 15x"))
    with pytest.raises(DataError, match=r"corpus\.jsonl changed after shard_000\d\d was made of it \(checksum\)"):
        make(out, tokenizer, corpus, config=config)

    corpus.write_bytes(content + line("more"))
    with pytest.raises(DataError, match=r"other input:\n  .*corpus\.jsonl: \d+ bytes -> \d+ bytes"):
        make(out, tokenizer, corpus, config=config)
    corpus.write_bytes(content)
    shutil.copy(corpus, tmp_path / "second.jsonl")
    with pytest.raises(DataError, match=r"second\.jsonl is new"):
        make(out, tokenizer, corpus, tmp_path / "second.jsonl", config=config)
    with pytest.raises(DataError, match=r"corpus\.jsonl is no longer there"):
        make(out, tokenizer, tmp_path / "second.jsonl", config=config)


def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_prep.tokenizing.worker import Worker

    tokenize_unit = Worker._tokenize

    def and_change(self: Worker, *args: Any) -> None:
        with corpus.open("ab") as file:
            file.write(line("late"))
        tokenize_unit(self, *args)

    monkeypatch.setattr(Worker, "_tokenize", and_change)
    with pytest.raises(DataError, match=r"corpus\.jsonl has \d+ bytes, and had \d+ when the job was planned"):
        make(tmp_path / "out", tokenizer, corpus)
    assert not (tmp_path / "out").exists()


def test_duplicates_are_found_across_units_and_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = [f"text number {i % 60}" + "  \n" * (i % 3) for i in range(200)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(map(line, texts[:90])))
    (tmp_path / "b.jsonl").write_bytes(b"".join(map(line, texts[90:])))
    inputs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for unit_bytes, workers in ((10**6, 1), (300, 1), (300, 2)):
        out = tmp_path / f"out{unit_bytes}{workers}"
        config = TokenizeConfig(unit_bytes=unit_bytes, dedup=True)
        manifest = make(out, tokenizer, *inputs, config=config, workers=workers)
        assert texts_in(out, tokenizer) == texts[:60]
        assert manifest.preparations[0].counters.duplicate == 140
    assert files(tmp_path / "out3001") == files(tmp_path / "out3002")


def test_standard_input(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    words = ["data", "tokenize", "--input", "-", "--tokenizer", tokenizer.folder, "--out", out, "--json"]
    command = [sys.executable, "-m", "pipeline.cli", *map(str, words)]
    with corpus.open("rb") as file:
        printed = subprocess.run(command, stdin=file, capture_output=True, check=True, text=True).stdout
    assert json.loads(printed)["documents"] == len(TEXTS)
    assert texts_in(out, tokenizer) == TEXTS
    assert not list(out.glob("stdin*"))


def test_a_mistake_of_ours_keeps_its_traceback(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(tokenize_module, "finish", fail)
    with pytest.raises(ZeroDivisionError):
        make(tmp_path / "out", tokenizer, corpus)


def test_an_option_given_twice_adds_to_the_first(
    run: Callable[..., int], tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(line(name))
    inputs = ["--input", tmp_path / "a.jsonl", "--input", tmp_path / "b.jsonl"]
    words = ["--tokenizer", tokenizer.folder, "--out", tmp_path / "out", "--engine", "hf", "--json"]
    assert run("data", "tokenize", *inputs, *words) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 2


def test_input_that_changes_after_it_was_hashed_is_refused(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_prep.tokenizing.worker import Worker

    tokenize_unit = Worker._tokenize
    content = corpus.read_bytes()

    def change_and_do(self: Worker, *args: Any) -> None:
        corpus.write_bytes(content.replace(b"Document 199", b"Document 19x"))
        tokenize_unit(self, *args)

    monkeypatch.setattr(Worker, "_tokenize", change_and_do)
    with pytest.raises(DataError, match=r"corpus\.jsonl changed after it was looked at for duplicates"):
        make(tmp_path / "out", tokenizer, corpus, config=TokenizeConfig(dedup=True))


def test_a_shard_without_documents_keeps_its_metadata_readable(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_bytes(line("one"))
    (tmp_path / "b.jsonl").write_bytes(line(""))
    config = TokenizeConfig(metadata_keys=("url",))
    manifest = make(tmp_path / "out", tokenizer, tmp_path / "a.jsonl", tmp_path / "b.jsonl", config=config)
    assert [shard.num_documents for shard in manifest.shards] == [1, 0]  # each pattern has shards of its own
    verify(tmp_path / "out")


def test_files_beside_a_shard_are_made_again(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_bytes(line("one") + b"nonsense\n")
    out = tmp_path / "out"
    arguments: dict[str, Any] = {
        "config": TokenizeConfig(metadata_keys=("url",)),
        "options": Options(on_bad_record="quarantine"),
    }
    make(out, tokenizer, tmp_path / "a.jsonl", **arguments)
    for name in ("shard_00000.metadata.jsonl.zst", "quarantine/shard_00000.jsonl"):
        before = (out / name).read_bytes()
        (out / name).unlink()
        make(out, tokenizer, tmp_path / "a.jsonl", **arguments)
        assert (out / name).read_bytes() == before
        verify(out)


def test_a_refused_start_leaves_the_job_of_another_alone(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    corpus.write_bytes(corpus.read_bytes() + b"nonsense\n")
    with pytest.raises(DataError, match="malformed json"):
        make(out, tokenizer, corpus, config=TokenizeConfig(unit_bytes=5_000))
    assert (out / "job.json").exists()
    before = files(out)
    with pytest.raises(DataError, match="other settings"):
        make(out, tokenizer, corpus, config=TokenizeConfig(unit_bytes=6_000))
    assert files(out) == before
    assert (out / "job.json").exists()


def test_a_job_that_was_changed_by_hand_is_refused(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    make(out, tokenizer, corpus)
    path = out / "job.json"
    content = path.read_bytes()
    for old, new in (
        (b'"uint16"', b'"uint8"'),
        (b'"format_version": 2', b'"format_version": 9'),
        (b'"kind": "jsonl"', b'"kind": "txt"'),
    ):
        assert old in content
        path.write_bytes(content.replace(old, new))
        with pytest.raises(DataError, match=r"job\.json is damaged, or was made by another version"):
            make(out, tokenizer, corpus)


def test_a_glob_that_matches_the_result_goes_on(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    pattern = tmp_path / "**" / "*.json*"
    assert corpus.is_file()
    first = make(tmp_path / "out", tokenizer, pattern)
    assert make(tmp_path / "out", tokenizer, pattern) == first
    assert first.num_documents == len(TEXTS)


def test_the_progress_names_documents_rates_and_bad_records(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.write_bytes(corpus.read_bytes() + b"nonsense\n")
    make(tmp_path / "out", tokenizer, corpus, options=SKIP)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(
        r"tokenize: 14\.\d kB of 14\.\d kB, [\d.e+]+ [kM]?B/s, \d+ s, 0 s left, "
        r"200 documents, [\d.]+ ktokens, [\d.e+]+ [kM]?tokens/s, 1 bad records",
        last,
    ), last
