"""The documents of a unit: read, looked at by the filters, and every record accounted for."""

import os
from collections.abc import Iterator
from dataclasses import replace

import xxhash

from data_prep.errors import DataError
from data_prep.text import filters
from data_prep.text.document import Batch
from data_prep.text.inputs import InputFile, stat
from data_prep.text.readers import Checksum, explain
from data_prep.text.units import Unit
from data_prep.tokenizer.special_tokens import SpecialNames
from data_prep.tokenizing.job import TokenizeConfig


class UnitDocuments:
    """Reads the units of a job: the same documents each time, for every step that needs them.

    Args:
        names: of special tokens that no text may spell; empty if they may.
        fails: a bad record ends the job; otherwise it is counted.
    """

    def __init__(
        self, config: TokenizeConfig, files: tuple[InputFile, ...], names: SpecialNames, *, fails: bool
    ) -> None:
        self._files, self._fails = files, fails
        self._reader = replace(config.reader(keeps_damaged=not fails), refused=names)
        self._filters = filters.filters_of(min_characters=config.min_characters)

    def read(self, unit: Unit, checksum: Checksum | None = None) -> Iterator[Batch]:
        """The batches of a unit, in order.

        Args:
            checksum: takes in what was read.

        Raises:
            DataError: a file cannot be read or changes meanwhile, or a record is bad and that ends the job.
        """
        for piece in unit.pieces:
            file = self._files[piece.file]
            before = _state(file)
            for batch in self._reader.read(file, piece, checksum):
                self._filter(batch)
                if self._fails and batch.bad:
                    raise DataError(explain(batch.bad[0].offender, file))
                yield batch
            if _state(file) != before:
                raise DataError(f"{file.path} changed while it was read. Let it be finished, then start anew.")

    def checksum(self, unit: Unit) -> str:
        """The xxh3-128 of what a unit reads, in hex."""
        checksum = xxhash.xxh3_128()
        for piece in unit.pieces:
            for _ in self._reader.read(self._files[piece.file], piece, checksum):
                pass
        return str(checksum.hexdigest())

    def _filter(self, batch: Batch) -> None:
        if not self._filters:
            return
        kept, reasons = filters.apply(self._filters, batch.texts)
        if reasons:
            batch.counters.filtered = reasons
            batch.keep(kept)


def _state(file: InputFile) -> tuple[int, int]:
    """Size and time of the last change; DataError if the size is not the planned one."""
    found: os.stat_result = stat(file.path)
    if found.st_size != file.size:
        raise DataError(
            f"{file.path} has {found.st_size} bytes, and had {file.size} when the job was planned. Restore it, or "
            "start anew with another --out."
        )
    return found.st_size, found.st_mtime_ns
