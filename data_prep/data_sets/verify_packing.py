"""What is wrong with the packings of a data set."""

from collections.abc import Iterator
from pathlib import Path

from data_prep.errors import DataError
from data_prep.manifest import Manifest
from data_prep.packing import Packing, read_packed_shard, read_packing, record_path, remedy


def packing_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    """A sentence for each problem; a data set has no packing, or several, of which all bytes are read."""
    for path in sorted(folder.glob("packed_*.json")):
        seq_len = path.stem.removeprefix("packed_")
        if not seq_len.isdecimal() or path != record_path(folder, int(seq_len)):
            continue
        try:
            packing = read_packing(folder, int(seq_len), manifest)
        except DataError as error:
            yield str(error)
        else:
            yield from _problems(folder, manifest, packing)


def _problems(folder: Path, manifest: Manifest, packing: Packing) -> Iterator[str]:
    seq_len, name = packing.seq_len, record_path(folder, packing.seq_len).name
    if [(one.name, one.idx_checksum) for one in packing.shards] != [
        (one.name, one.idx_checksum) for one in manifest.shards
    ]:
        yield f"{name} does not describe the shards of the manifest. {remedy(folder, seq_len)}"
        return
    for shard in packing.shards:
        try:
            found = read_packed_shard(folder, shard.name, seq_len, deep=True)
        except DataError as error:
            yield str(error)
        else:
            if found != shard:
                yield f"{name} describes another packing of {shard.name}. {remedy(folder, seq_len)}"
