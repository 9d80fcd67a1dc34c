"""How far a tokenizing job is, wherever it runs: read from the files that its workers write."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.accounting import Counters
from data_prep.errors import DataError
from data_prep.manifest import FILE_NAME
from data_prep.tokenizing.claims import Held, held_claims
from data_prep.tokenizing.commits import Commit, committed_names, read_commit
from data_prep.tokenizing.job import WORK_FOLDER, Job, load_job


@dataclass(kw_only=True)
class Snapshot:
    """A job at one moment.

    Attributes:
        is_complete: the manifest is there.
        weight: bytes of the input that are done, of `total_weight`.
        counters: of all records that were looked at so far.
        held: what is being worked on.
    """

    is_complete: bool
    num_units: int
    num_units_done: int
    weight: int
    total_weight: int
    num_tokens: int
    counters: Counters
    held: list[Held] = field(default_factory=list)

    @property
    def phase(self) -> str:
        """What the workers do: tokenize, or hash documents to find duplicates."""
        return "hash" if any("hashed_weight" in held.note for held in self.held) else "tokenize"


class Monitor:
    """Looks at the job in `out` again and again; each commit record is read once.

    Raises:
        DataError: there is no job.
    """

    def __init__(self, out: Path, job: Job | None = None) -> None:
        self._out = out
        request = (job or load_job(out)).request
        self._units = {unit.name: unit for unit in request.units()}
        self._total_weight = sum(unit.weight for unit in self._units.values())
        self._config_hash = request.config_hash
        self._commits: dict[str, Commit] = {}
        self._counters = Counters()

    def look(self) -> Snapshot:
        """The job as it is now."""
        for name in committed_names(self._out):
            if name in self._units and name not in self._commits:
                self._take(name)
        held = held_claims(self._out / WORK_FOLDER)
        counters = Counters.sum([self._counters])
        for one in held:
            counters.documents += _number(one, "documents")
            bad = _number(one, "bad")
            if bad:
                counters.bad["in units that are not done yet"] = bad
        done = self._commits.values()
        return Snapshot(
            is_complete=(self._out / FILE_NAME).exists(),
            num_units=len(self._units),
            num_units_done=len(self._commits),
            weight=sum(commit.weight for commit in done) + sum(_number(one, "weight") for one in held),
            total_weight=self._total_weight,
            num_tokens=sum(commit.shard.num_tokens for commit in done) + sum(_number(one, "tokens") for one in held),
            counters=counters,
            held=held,
        )

    def _take(self, name: str) -> None:
        try:
            commit = read_commit(self._out, name, config_hash=self._config_hash)
        except DataError:  # the worker that comes to it says so
            return
        if commit is not None:
            self._commits[name] = commit
            self._counters.add(commit.counters)


def figures(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot by name, for people and programs."""
    done = snapshot.weight / max(snapshot.total_weight, 1)
    result: dict[str, Any] = {
        "state": "complete" if snapshot.is_complete else f"{snapshot.phase}, {done:.1%} done",
        "units_done": snapshot.num_units_done,
        "units": snapshot.num_units,
        "bytes_done": snapshot.weight,
        "bytes": snapshot.total_weight,
        "documents": snapshot.counters.documents,
        "tokens": snapshot.num_tokens,
        "bad_records": snapshot.counters.num_bad,
    }
    for held in snapshot.held:
        state = "gone" if held.owner.is_gone() else f"heard of {held.silent_seconds:.0f} s ago"
        result[held.item] = f"process {held.owner.pid} on {held.owner.host}, {state}"
    return result


def _number(held: Held, key: str) -> int:
    value = held.note.get(key, 0)
    return value if isinstance(value, int) else 0
