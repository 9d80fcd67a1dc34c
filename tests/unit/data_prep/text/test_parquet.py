"""Rows of a .parquet: the same documents and counts as lines of JSON of the same records, in bounded memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from data_prep.accounting import Counters
from data_prep.errors import DataError
from data_prep.text import parquet
from data_prep.text.document import Batch, Document
from data_prep.text.inputs import describe
from data_prep.text.parsing import Fields
from data_prep.text.readers import Reader, explain, read_documents
from data_prep.text.units import Piece, plan_units
from data_prep.tokenizer.special_tokens import SpecialNames

TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]


def column(texts: Sequence[str | None], kind: Any) -> Any:
    array = pa.array(texts, pa.string())
    return array.dictionary_encode() if pa.types.is_dictionary(kind) else array.cast(kind)


def read(path: Path, reader: Reader, *, unit_bytes: int = 10**9, checksum: Any = None) -> Batch:
    """All batches of a file in one."""
    total = Batch(metadata=[])
    [file] = describe([[path]])
    for unit in plan_units([file], unit_bytes=unit_bytes, whole_txt=True):
        for piece in unit.pieces:
            for batch in reader.read(file, piece, checksum):
                assert batch.counters.is_complete()
                total.texts += batch.texts
                total.metadata += batch.metadata or []  # type: ignore[operator]
                total.counters.add(batch.counters)
                total.bad += batch.bad
                total.weight += batch.weight
    return total


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parquet")


texts = st.none() | st.text(max_size=12) | st.sampled_from(["", " ", "\x00", "a <|eos|> b", "x" * 25, "é" * 13])


@given(
    rows=st.lists(st.tuples(texts, texts), max_size=12),
    kind=st.sampled_from(TYPES),
    group=st.integers(1, 5),
    unit_bytes=st.sampled_from([1, 300, 10**9]),
    batch_bytes=st.integers(1, 60),
    limit=st.sampled_from([24, 25, 26, 1000]),
    fields=st.sampled_from(
        [
            Fields(),
            Fields(template="{title}: {text}"),
            Fields(metadata_keys=("title",)),
            Fields(metadata_keys=("text", "title")),
        ]
    ),
)
def test_rows_are_read_like_lines_of_json(
    folder: Path,
    rows: list[tuple[Any, Any]],
    kind: Any,
    group: int,
    unit_bytes: int,
    batch_bytes: int,
    limit: int,
    fields: Fields,
) -> None:
    table = pa.table(
        {"id": range(len(rows)), "text": column([row[0] for row in rows], kind), "title": [row[1] for row in rows]},
        schema=pa.schema([("id", pa.int64()), ("text", kind), ("title", pa.string())]),
    )
    pq.write_table(table, folder / "a.parquet", row_group_size=group)
    reader = Reader(fields=fields, refused=SpecialNames(["<|eos|>"]), max_record_bytes=limit)
    with patch.object(parquet, "BATCH_BYTES", batch_bytes):
        found = read(folder / "a.parquet", reader, unit_bytes=unit_bytes)
    # The length of a row is that of its texts, a line of JSON is longer: it is left to the rows to be too long.
    long_rows = {
        number
        for number, row in enumerate(rows)
        if sum(len((value or "").encode()) for value in (row if fields.template else row[:1])) > limit
    }
    short = [row for number, row in enumerate(rows) if number not in long_rows]
    (folder / "a.jsonl").write_bytes(
        b"".join(orjson.dumps({"text": text, "title": title}) + b"\n" for text, title in short)
    )
    expected = read(folder / "a.jsonl", Reader(fields=fields, refused=reader.refused))
    assert found.texts == expected.texts
    assert found.metadata == expected.metadata
    expected.counters.add(Counters(lines=len(long_rows), bad={"too_long": len(long_rows)} if long_rows else {}))
    assert found.counters == expected.counters
    assert [bad.offender.offset for bad in found.bad] == sorted(bad.offender.offset for bad in found.bad)
    for bad in found.bad:
        row = rows[bad.offender.offset]
        raw = "".join(value or "" for value in (row[::-1] if fields.template else row[:1])).encode()
        assert bad.raw == raw[:limit]


def write_invalid(path: Path, kind: Callable[[], Any] = pa.string) -> None:
    """Three texts, the second of which is not UTF-8."""
    offsets = pa.array([0, 4, 7, 11], pa.int32() if kind is pa.string else pa.int64()).buffers()[1]
    array = pa.Array.from_buffers(kind(), 3, [None, offsets, pa.py_buffer(b"goodb\xffdgood")])
    pq.write_table(pa.table({"text": array, "id": [1, 2, 3]}), path)


@pytest.mark.parametrize("kind", [pa.string, pa.large_string])
@pytest.mark.parametrize("fields", [Fields(), Fields(metadata_keys=("id",)), Fields(template="{text}")])
def test_a_string_that_is_not_utf8_is_one_bad_row(tmp_path: Path, kind: Callable[[], Any], fields: Fields) -> None:
    write_invalid(tmp_path / "a.parquet", kind)
    found = read(tmp_path / "a.parquet", Reader(fields=fields))
    assert found.texts == ["good", "good"]
    assert found.counters == Counters(lines=3, documents=2, bad={"invalid_utf8": 1})
    [bad] = found.bad
    assert (bad.offender.offset, bad.raw) == (1, b"b\xffd")
    [file] = describe([[tmp_path / "a.parquet"]])
    assert "a.parquet, row 1: invalid utf8: not UTF-8: byte 0xff at byte 1" in explain(bad.offender, file)


def test_metadata_that_is_not_utf8_or_not_json_is_a_bad_row(tmp_path: Path) -> None:
    write_invalid(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet").rename_columns(["title", "text"])
    pq.write_table(table.set_column(1, "text", pa.array(["a", "b", "c"])), tmp_path / "b.parquet")
    found = read(tmp_path / "b.parquet", Reader(fields=Fields(metadata_keys=("title",))))
    assert found.texts == ["a", "c"]
    assert found.counters.bad == {"bad_metadata": 1}
    pq.write_table(pa.table({"text": ["a"], "raw": [b"bytes"]}), tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet", Reader(fields=Fields(metadata_keys=("raw",)))).counters.num_bad == 1


def test_nested_metadata_is_kept(tmp_path: Path) -> None:
    rows = [{"text": "a", "more": {"tags": ["x", None], "n": 1.5}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", Reader(fields=Fields(metadata_keys=("more",)))).metadata == [
        {"more": rows[0]["more"]}
    ]


def test_a_column_with_a_dot_is_not_one_inside_another(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [{"b": "inner"}], "a.b": ["outer"]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", Reader(fields=Fields(text_key="a.b"))).texts == ["outer"]
    pq.write_table(pa.table({"a": [{"b": "inner"}]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has no column 'a\.b' \(columns: a\)"):
        read(tmp_path / "a.parquet", Reader(fields=Fields(text_key="a.b")))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"body": ["a"], "id": [1]}), r"has no column 'text' \(columns: body, id\)\. Give .* --text-key"),
        (pa.table({"text": [1]}), "column 'text' holds int64, not strings"),
        (pa.table({"text": [b"a"]}), "column 'text' holds binary, not strings"),
        (pa.table({"text": [["a"]]}), "column 'text' holds list<.*>, not strings"),
        (pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"]), "has 2 columns 'text'"),
    ],
)
def test_a_column_that_is_no_text_is_refused(tmp_path: Path, table: Any, message: str) -> None:
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=rf"a\.parquet:? {message}"):
        read(tmp_path / "a.parquet", Reader())


def test_a_kept_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"has no column 'id' .* --keep"):
        read(tmp_path / "a.parquet", Reader(fields=Fields(metadata_keys=("id",))))


def test_nothing_but_nulls_is_counted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.nulls(3)}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", Reader()).counters == Counters(lines=3, bad={"null": 3})


def test_no_rows_and_no_row_groups_are_no_documents(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string())])
    pq.write_table(schema.empty_table(), tmp_path / "a.parquet")
    with pq.ParquetWriter(tmp_path / "b.parquet", schema):
        pass
    for name in ("a.parquet", "b.parquet"):
        assert read(tmp_path / name, Reader()).counters == Counters()
        assert list(read_documents(tmp_path / name)) == []


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", b"PAR1" + b"\x00" * 20 + b"PAR1"])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as \.parquet: .*Copy or write it again"):
        list(describe([[tmp_path / "a.parquet"]]))


def test_each_row_that_is_lost_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{number} " * 50 for number in range(3000)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=1000, use_dictionary=False)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + 20
    content[middle : middle + 500] = b"\xee" * 500
    path.write_bytes(content)
    found = read(path, Reader(keeps_damaged=True))
    lost = found.counters.bad["damaged_file"]
    assert 0 < lost <= 1000
    assert found.texts == texts[: 2000 - lost] + texts[2000:]
    assert found.counters == Counters(lines=3000, documents=3000 - lost, bad={"damaged_file": lost})
    assert [bad.offender.offset for bad in found.bad] == [2000 - lost]
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as \.parquet"):
        read(path, Reader())


def test_only_the_columns_that_are_needed_are_read(tmp_path: Path) -> None:
    names = [f"column_{number}" for number in range(200)]
    pq.write_table(pa.table({"text": ["a"] * 10} | dict.fromkeys(names, range(10))), tmp_path / "a.parquet")
    asked = []
    original = pq.ParquetFile.iter_batches

    def iter_batches(self: Any, *args: Any, columns: list[str], **settings: Any) -> Any:
        asked.append(columns)
        return original(self, *args, columns=columns, **settings)

    with patch.object(pq.ParquetFile, "iter_batches", iter_batches):
        read(tmp_path / "a.parquet", Reader(fields=Fields(metadata_keys=("column_7",))))
    assert asked == [["text", "column_7"]]


def test_the_checksum_is_that_of_the_columns(tmp_path: Path) -> None:
    def checksum(texts: list[str], ids: list[int], unit_bytes: int = 10**9) -> str:
        pq.write_table(pa.table({"text": texts, "id": ids}), tmp_path / "a.parquet", row_group_size=2)
        found = xxhash.xxh3_128()
        read(tmp_path / "a.parquet", Reader(), unit_bytes=unit_bytes, checksum=found)
        return str(found.hexdigest())

    expected = checksum(["ab", "c", "d"], [1, 2, 3])
    assert checksum(["ab", "c", "d"], [1, 2, 4]) == expected
    assert checksum(["ab", "c", "d"], [1, 2, 3], unit_bytes=1) == expected
    assert checksum(["a", "bc", "d"], [1, 2, 3]) != expected


def test_weights_add_up_to_what_was_planned(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": [f"text {number}" for number in range(5000)]}), tmp_path / "a.parquet", row_group_size=700
    )
    [file] = describe([[tmp_path / "a.parquet"]])
    assert read(tmp_path / "a.parquet", Reader(), unit_bytes=20_000).weight == sum(file.row_groups)
    seen: list[int] = []
    documents = list(read_documents(tmp_path / "a.parquet", on_bytes=seen.append))
    assert documents[-1] == Document(str(tmp_path / "a.parquet"), "text 4999")
    assert sum(seen) == file.size


def test_a_text_that_is_repeated_is_not_written_out(tmp_path: Path) -> None:
    indices = pa.array([0] * 1000, pa.int32())
    array = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 10**6]))
    pq.write_table(pa.table({"text": array}), tmp_path / "a.parquet")
    [file] = describe([[tmp_path / "a.parquet"]])
    before = pa.total_allocated_bytes()
    for batch in Reader().read(file, Piece(0, 0, 1, 1)):
        assert len(batch.texts) <= 2
        assert pa.total_allocated_bytes() - before < 50 * 10**6


def test_a_row_that_is_too_long_is_not_made_a_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "x" * 5 * 10**6, "b"]}), tmp_path / "a.parquet")
    with patch.object(parquet, "values", wraps=parquet.values) as values:
        found = read(tmp_path / "a.parquet", Reader(max_record_bytes=2**20))
    assert found.texts == ["a", "b"]
    assert [len(bad.raw) for bad in found.bad] == [2**20]
    assert max(call.args[0].nbytes for call in values.call_args_list) < 1000
