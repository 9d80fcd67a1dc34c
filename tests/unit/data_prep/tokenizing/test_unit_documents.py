"""The documents of a unit: what is read, filtered and refused adds up."""

from pathlib import Path

import pytest
import xxhash

from data_prep.accounting import Counters
from data_prep.errors import DataError
from data_prep.text.inputs import describe
from data_prep.text.units import Unit, plan_units
from data_prep.tokenizer.special_tokens import SpecialNames
from data_prep.tokenizing.job import TokenizeConfig
from data_prep.tokenizing.unit_documents import UnitDocuments

LINES = (
    b'{"text": "long enough"}\n{"text": "no"}\n\n{"text": "it has <eos> in it"}\n{"text": 1}\n{"text": "last one"}\n'
)
NAMES = SpecialNames(["<eos>"])


def planned(
    folder: Path, config: TokenizeConfig, names: SpecialNames = NAMES, *, fails: bool = False
) -> tuple[UnitDocuments, list[Unit]]:
    files = tuple(describe([sorted(folder.iterdir())]))
    units = plan_units(files, unit_bytes=config.unit_bytes, whole_txt=config.txt_documents == "file")
    return UnitDocuments(config, files, names, fails=fails), units


@pytest.mark.parametrize("unit_bytes", [10, 30, 10**6])
def test_every_record_is_accounted_for(tmp_path: Path, unit_bytes: int) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.jsonl").write_bytes(LINES)
    documents, units = planned(tmp_path, TokenizeConfig(min_characters=5, unit_bytes=unit_bytes))
    batches = [batch for unit in units for batch in documents.read(unit)]
    assert [text for batch in batches for text in batch.texts] == ["long enough", "last one"] * 2
    assert all(batch.counters.is_complete() for batch in batches)
    assert Counters.sum(batch.counters for batch in batches) == Counters(
        lines=12,
        documents=4,
        empty=2,
        filtered={"shorter than 5 characters": 2},
        bad={"special_token": 2, "not_a_string": 2},
    )


def test_a_text_that_spells_a_special_token_is_named_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    documents, [unit] = planned(tmp_path, TokenizeConfig())
    [bad, _] = [bad for batch in documents.read(unit) for bad in batch.bad]
    assert LINES[bad.offender.offset :].startswith(bad.raw + b"\n")
    assert b"<eos>" in bad.raw
    documents, [unit] = planned(tmp_path, TokenizeConfig(), fails=True)
    with pytest.raises(DataError, match=r"a\.jsonl:4, byte 40: special token: it spells '<eos>'\. Choose --special-in"):
        list(documents.read(unit))


def test_a_bad_record_ends_the_job_if_it_shall(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    documents, [unit] = planned(tmp_path, TokenizeConfig(), SpecialNames(()), fails=True)
    with pytest.raises(DataError, match=r"a\.jsonl:5, byte 71: not a string: 'text' is of type int"):
        list(documents.read(unit))


def test_the_checksum_is_that_of_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    documents, units = planned(tmp_path, TokenizeConfig(unit_bytes=40))
    for unit in units:
        checksum = xxhash.xxh3_128()
        list(documents.read(unit, checksum))
        assert documents.checksum(unit) == checksum.hexdigest()
    before = [documents.checksum(unit) for unit in units]
    (tmp_path / "a.jsonl").write_bytes(LINES.replace(b"last", b"LAST"))
    after = [documents.checksum(unit) for unit in units]
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    documents, [unit] = planned(tmp_path, TokenizeConfig())
    reading = documents.read(unit)
    next(reading)
    (tmp_path / "a.jsonl").write_bytes(LINES + b"{}")
    with pytest.raises(DataError, match=r"a\.jsonl has \d+ bytes, and had \d+ when the job was planned"):
        list(reading)
    with pytest.raises(DataError, match="when the job was planned"):
        list(documents.read(unit))
