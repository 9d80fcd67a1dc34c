"""One process of a tokenizing job: it takes units that nobody works on, and makes their shards.

`python -m data_prep.tokenizing.worker OUT` joins the job in the folder OUT; `tokenize` starts such processes.
"""

import argparse
import errno
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from data_prep.engine.encoder import Encoder
from data_prep.engine.engines import Engine
from data_prep.errors import DataError, Interrupted, UserError
from data_prep.manifest import FILE_NAME as MANIFEST
from data_prep.text.document import Batch
from data_prep.text.readers import Checksum
from data_prep.text.units import Unit
from data_prep.tokenizer import loading
from data_prep.tokenizer.special_tokens import SpecialNames
from data_prep.tokenizer.tokenizers import Tokenizer
from data_prep.tokenizing import dedup
from data_prep.tokenizing.claims import Claim, claimed
from data_prep.tokenizing.commits import Commit, read_commit
from data_prep.tokenizing.job import WORK_FOLDER, Job, load_job
from data_prep.tokenizing.options import BAD_RECORD_POLICIES, EXIT_INTERRUPTED, EXIT_WRONG_INPUT, Options
from data_prep.tokenizing.sentence_cutter import SentenceCutter, Sequences
from data_prep.tokenizing.sequences import drop_empty, num_filled, with_ending
from data_prep.tokenizing.stopping import Stop, stopping_on_signals
from data_prep.tokenizing.unit_documents import UnitDocuments
from data_prep.tokenizing.unit_output import UnitOutput

POLL_SECONDS = 0.1
NO_PLACES = np.zeros(0, np.uint32)


def is_done(commit: Commit | None, options: Options) -> bool:
    """Whether a unit needs no more work: bad records that were skipped before are wanted in quarantine now."""
    if commit is None:
        return False
    return (
        options.on_bad_record != "quarantine" or not commit.counters.num_bad or commit.quarantine_checksum is not None
    )


class Worker:
    """Does units of a job in its folder `out`, as long as there are any.

    Args:
        tokenizer: that of the job; loaded if not given.
        engine: that of the job; opened when the first unit is tokenized, if not given.

    Attributes:
        units: of the whole job, in order.
    """

    def __init__(
        self,
        out: Path,
        job: Job,
        options: Options,
        stop: Stop,
        tokenizer: Tokenizer | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._out, self._options, self._stop = out, options, stop
        self._work = out / WORK_FOLDER
        self._was_finished = (out / MANIFEST).exists()
        self._job, request = job, job.request
        self._config_hash = request.config_hash
        self.units = request.units()
        self._tokenizer = tokenizer or loading.load(out / request.tokenizer.path)
        self._engine: Engine | str = engine or self._job.engine.name
        self._encoder: Encoder | None = None
        self._config = request.config
        names = self._tokenizer.special_tokens if self._config.special_in_text == "error" else ()
        self._documents = UnitDocuments(
            self._config, request.files, SpecialNames(names), fails=options.on_bad_record == "fail"
        )
        self._ending, self._dtype = request.eod_id, np.dtype(request.dtype)
        language, keeps_names = self._config.split_sentences, self._config.special_in_text == "encode"
        self._cutter = SentenceCutter(language, self._tokenizer, keeps_names=keeps_names) if language else None

    def run(self, units: Sequence[Unit]) -> None:
        """Do `units`, those that others work on excepted; wait for these, and take them over if they die.

        Raises:
            DataError: the input or the disk is at fault; nothing half-done is left.
            Interrupted: the process was asked to stop.
        """
        try:
            self._run(units)
        except (DataError, OSError):
            # Another process may have finished the job meanwhile, and removed what only the work needed.
            if not all(map(self._is_tokenized, units)):
                raise

    def _run(self, units: Sequence[Unit]) -> None:
        buckets = 0
        if self._config.dedup and not all(map(self._is_tokenized, units)):
            self._until_done(self._own_first(units), _hashing, self._is_hashed, self._hash)
            buckets = dedup.num_buckets(self._work, len(self.units))
            self._until_done(
                range(buckets),
                lambda bucket: f"bucket_{bucket:05d}",
                lambda bucket: dedup.bucket_path(self._work, bucket).exists(),
                lambda bucket, _: dedup.write_duplicates(self._work, bucket, buckets, len(self.units)),
            )
        self._until_done(
            units,
            lambda unit: unit.name,
            self._is_tokenized,
            lambda unit, claim: self._tokenize(unit, claim, buckets),
        )

    def _until_done(
        self,
        items: Sequence[Any],
        name: Callable[[Any], str],
        is_done: Callable[[Any], bool],
        do: Callable[[Any, Claim], None],
    ) -> None:
        """Do all `items` that no process does yet, and wait for the others."""
        pending = list(items)
        while pending := [item for item in pending if not is_done(item)]:
            was_idle = True
            for item in pending:
                self._stop.check()
                with claimed(self._work, name(item)) as claim:
                    if claim is not None and not is_done(item):
                        do(item, claim)
                        was_idle = False
            if was_idle:
                self._stop.sleep(POLL_SECONDS)

    def _own_first(self, units: Sequence[Unit]) -> list[Unit]:
        """All units: every document must be hashed before one shard can be made, whoever does it."""
        own = {unit.number for unit in units}
        return [*units, *(unit for unit in self.units if unit.number not in own)]

    def _is_hashed(self, unit: Unit) -> bool:
        return dedup.hashes_path(self._work, unit.number).exists() or self._is_over()

    def _is_over(self) -> bool:
        """Whether the job was finished since this process began."""
        return not self._was_finished and (self._out / MANIFEST).exists()

    def _hash(self, unit: Unit, claim: Claim) -> None:
        checksum = xxhash.xxh3_128()
        texts = (batch.texts for batch in self._batches(unit, claim, checksum))
        dedup.write_hashes(dedup.hashes_path(self._work, unit.number), texts, checksum.hexdigest)

    def _is_tokenized(self, unit: Unit) -> bool:
        return is_done(read_commit(self._out, unit.name, config_hash=self._config_hash), self._options)

    def _batches(
        self, unit: Unit, claim: Claim, checksum: Checksum | None = None, output: UnitOutput | None = None
    ) -> Iterator[Batch]:
        """What the unit reads; between two batches the process may stop, and says how far it is."""
        weight = 0
        for batch in self._documents.read(unit, checksum):
            self._stop.check()
            yield batch
            weight += batch.weight
            note = {"weight": weight} if output else {"hashed_weight": weight}
            if output:
                note |= {"documents": output.counters.documents, "bad": output.counters.num_bad}
                note |= {"tokens": output.num_tokens}
            claim.beat(note)

    def _tokenize(self, unit: Unit, claim: Claim, buckets: int) -> None:
        duplicates = dedup.duplicates_of(self._work, unit.number, buckets) if buckets else NO_PLACES
        encoder = self._encoder = self._encoder or Encoder(self._tokenizer, self._engine, self._config.special_in_text)
        checksum = xxhash.xxh3_128()
        sample = Sample(self._options.recheck, unit.weight)
        quarantines = self._options.on_bad_record == "quarantine"
        with UnitOutput(self._out, unit, self._job.request, quarantines=quarantines) as output:
            first = 0
            for batch in joined(self._batches(unit, claim, checksum, output), encoder.batch_characters):
                num_texts = len(batch.texts)
                drop_duplicates(batch, duplicates, first)
                first += num_texts
                self._write(batch, encoder, sample, output)
            if buckets and dedup.input_checksum(self._work, unit.number) != checksum.hexdigest():
                names = ", ".join(self._job.request.files[piece.file].path for piece in unit.pieces)
                raise DataError(
                    f"{names} changed after it was looked at for duplicates. Restore it, or remove {self._out} and "
                    "start anew."
                )
            output.commit(
                config_hash=self._config_hash,
                input_checksum=checksum.hexdigest(),
                engine=f"{self._job.engine.name} {self._job.engine.version}",
                num_rechecked=sample.taken,
            )

    def _write(self, batch: Batch, encoder: Encoder, sample: "Sample", output: UnitOutput) -> None:
        texts, counts = sequences = self._sequences(batch.texts)
        encoded = encoder.encode(texts)
        encoder.recheck(texts, encoded, sequences.of(sample.places(batch)))
        counts = num_filled(encoded.lengths, counts)
        drop_empty(batch, counts)
        lengths, counts = encoded.lengths[encoded.lengths > 0], counts[counts > 0]
        output.write(batch, *with_ending(encoded.ids, lengths, counts, self._ending, self._dtype), counts)

    def _sequences(self, texts: list[str]) -> Sequences:
        if self._cutter is None:
            return Sequences(texts, np.ones(len(texts), np.int64))
        return self._cutter.cut(texts)


def _hashing(unit: Unit) -> str:
    return f"hash_{unit.number:05d}"


def joined(batches: Iterable[Batch], characters: int) -> Iterator[Batch]:
    """The batches, those put together that hold less than so many characters of text."""
    pending, size = None, 0
    for batch in batches:
        if pending is None:
            pending, size = batch, 0
        else:
            pending.extend(batch)
        size += sum(map(len, batch.texts))
        if size >= characters:
            yield pending
            pending = None
    if pending is not None:
        yield pending


class Sample:
    """Which documents of a unit are compared with the reference tokenizer: evenly over the unit, the same each time."""

    def __init__(self, size: int, weight: int) -> None:
        self._size, self._weight = size, max(weight, 1)
        self._read = self.taken = 0

    def places(self, batch: Batch) -> list[int]:
        """The places of a batch's documents that are in the sample."""
        self._read += batch.weight
        due = min(-(-self._size * self._read // self._weight), self._size) - self.taken
        count = min(max(due, 0), len(batch.texts))
        self.taken += count
        return [len(batch.texts) * number // count for number in range(count)]


def drop_duplicates(batch: Batch, duplicates: npt.NDArray[np.uint32], first: int) -> None:
    """Leave out the documents that are duplicates; `first` is the place in the unit of the batch's first one."""
    begin, end = np.searchsorted(duplicates, [first, first + len(batch.texts)])
    if begin < end:
        dropped = set((duplicates[begin:end] - first).tolist())
        batch.counters.duplicate += len(dropped)
        batch.keep([place for place in range(len(batch.texts)) if place not in dropped])


def main() -> int:
    """`python -m data_prep.tokenizing.worker OUT ...`: join the job in OUT as a process of its own.

    Returns:
        The exit code, of those in `options`.
    """
    parser = argparse.ArgumentParser(prog="python -m data_prep.tokenizing.worker")
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", default="0/1")
    parser.add_argument("--on-bad-record", choices=BAD_RECORD_POLICIES, required=True)
    parser.add_argument("--recheck", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    args = parser.parse_args()
    options = Options(on_bad_record=args.on_bad_record, recheck=args.recheck)
    try:
        with stopping_on_signals(args.parent) as stop:
            worker = Worker(args.out, load_job(args.out), options, stop)
            worker.run(share(worker.units, args.task))
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG_INPUT
    except OSError as error:
        print(explain_os_error(args.out, error), file=sys.stderr)
        return EXIT_WRONG_INPUT
    except Interrupted:
        return EXIT_INTERRUPTED
    return 0


def share(units: Sequence[Unit], task: str) -> list[Unit]:
    """The units of task I of N, `I/N`, counted from 0: every N-th one, so that all tasks have as much to do."""
    index, count = map(int, task.split("/"))
    return list(units[index::count])


def explain_os_error(out: Path, error: OSError) -> str:
    """What a person can do about a disk that cannot be written to."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free space" if is_full else "see to the folder"
    return (
        f"{out} cannot be written: {error.strerror or error}. The units that are done are kept: {remedy}, and give the "
        "same command again."
    )


if __name__ == "__main__":
    sys.exit(main())
