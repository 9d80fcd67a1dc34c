"""The files that a unit becomes: its shard, what is kept beside it, its bad records, and at last its commit record."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import orjson

from data_prep.accounting import Counters, Offender
from data_prep.metadata import MetadataWriter
from data_prep.text.document import Batch
from data_prep.text.units import Unit
from data_prep.tokenizing.commits import MAX_OFFENDERS, Commit, write_commit
from data_prep.tokenizing.job import Request
from data_prep.tokenizing.quarantine import QuarantineWriter, quarantine_path
from data_prep.writer import ShardWriter


class UnitOutput:
    """Takes the batches of a unit in order. As a context manager it leaves nothing unless `commit` was reached.

    Attributes:
        counters: the records taken so far.
        num_tokens: so far.
    """

    def __init__(self, out: Path, unit: Unit, request: Request, *, quarantines: bool) -> None:
        self._out, self._unit = out, unit
        self.counters = Counters()
        self._offenders: list[Offender] = []
        self._num_text_bytes = self._weight = 0
        self._metadata: MetadataWriter | None = None
        self._quarantine: QuarantineWriter | None = None
        with ExitStack() as stack:
            self._shard = stack.enter_context(ShardWriter(out, unit.name, np.dtype(request.dtype)))
            if request.config.metadata_keys:
                self._metadata = stack.enter_context(MetadataWriter(out, unit.name))
            if quarantines:
                self._quarantine = stack.enter_context(QuarantineWriter(quarantine_path(out, unit.name)))
            self._stack = stack.pop_all()

    @property
    def num_tokens(self) -> int:
        return self._shard.num_tokens

    def write(
        self,
        batch: Batch,
        ids: npt.NDArray[np.integer],
        lengths: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64],
    ) -> None:
        """Add a batch, whose documents became `ids`; see `ShardWriter.append_batch`."""
        self._shard.append_batch(ids, lengths, counts)
        self._num_text_bytes += sum(len(text) if text.isascii() else len(text.encode()) for text in batch.texts)
        self._weight += batch.weight
        self.counters.add(batch.counters)
        self._offenders += [record.offender for record in batch.bad[: MAX_OFFENDERS - len(self._offenders)]]
        if self._metadata is not None and batch.metadata:
            self._metadata.write(b"".join(orjson.dumps(one) + b"\n" for one in batch.metadata))
        if self._quarantine is not None:
            for record in batch.bad:
                self._quarantine.write(record)

    def commit(self, *, config_hash: str, input_checksum: str, engine: str, num_rechecked: int) -> Commit:
        """Flush everything to the disk, give the files their names, and write the record that makes the unit count."""
        assert self.counters.is_complete(), f"{self._unit.name}: a record is not accounted for: {self.counters}"
        metadata_checksum = self._metadata.commit() if self._metadata is not None else None
        quarantine_checksum = self._quarantine.commit() if self._quarantine is not None else None
        commit = Commit(
            config_hash=config_hash,
            source=self._unit.source,
            shard=self._shard.commit(metadata_checksum),
            counters=self.counters,
            num_text_bytes=self._num_text_bytes,
            weight=self._unit.weight,
            input_checksum=input_checksum,
            engine=engine,
            num_rechecked=num_rechecked,
            quarantine_checksum=quarantine_checksum,
            offenders=tuple(self._offenders),
        )
        write_commit(commit, self._out)
        return commit

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
