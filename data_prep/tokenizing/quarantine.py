"""The bad records of a unit in a file of their own, for a person to look at."""

import base64
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from data_prep.atomic import link_if_absent, sync_file, temporary_beside
from data_prep.checksum import file_checksum
from data_prep.text.document import BadRecord

FOLDER = "quarantine"


def quarantine_path(out: Path, name: str) -> Path:
    """Where the bad records of the unit `name` are: a line of JSON for each, with the place, the kind and the bytes."""
    return out / FOLDER / f"{name}.jsonl"


class QuarantineWriter:
    """Writes the bad records of a unit; no file if there are none.

    As a context manager it removes what it wrote under a temporary name unless `commit` was reached.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = temporary_beside(path)
        self._file: Any = None

    def write(self, record: BadRecord) -> None:
        """Add a record; bytes that are not UTF-8 are kept as `raw_base64`."""
        if self._file is None:
            self._path.parent.mkdir(exist_ok=True)
            self._file = self._temporary.open("wb")
        self._file.write(orjson.dumps({"record": record.offender, **_raw(record.raw)}) + b"\n")

    def commit(self) -> str | None:
        """Flush the file to the disk and give it its name.

        Returns:
            Its xxh3-128 in hex; None if there is no bad record.
        """
        if self._file is None:
            return None
        self._file.close()
        sync_file(self._temporary)
        checksum = file_checksum(self._temporary)
        link_if_absent(self._temporary, self._path)
        return checksum

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._temporary.unlink(missing_ok=True)


def _raw(raw: bytes) -> dict[str, str]:
    try:
        return {"raw": raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(raw).decode()}
