"""What an engine does on its own: `python -m tests.bench.engine_rate ENGINE TOKENIZER.json FILE.jsonl`.

Prints the seconds, by both clocks, in which the library turns the texts of the file, which are in memory, into ids.
"""

import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

BATCH_CHARACTERS = 8_000_000  # larger batches change nothing but the memory for their ids

Encode = Callable[[Sequence[str]], Any]


def open_library(name: str, definition: str) -> Encode:
    """The library's own call for many texts, made for one core."""
    if name == "fastokens":
        encode = importlib.import_module("fastokens").Tokenizer.from_json_str(definition).encode_batch_flat
        return lambda texts: encode(texts, split_special_tokens=True)
    encode = importlib.import_module("gigatoken.gigatoken_rs").load_hf_json(definition).encode_batch
    return lambda texts: encode(texts, parallel=False)


def batches(path: Path) -> Iterator[list[str]]:
    """The texts of the file, some MB together."""
    batch: list[str] = []
    characters = 0
    with path.open("rb") as file:
        for line in file:
            batch.append(orjson.loads(line)["text"])
            characters += len(batch[-1])
            if characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    yield batch


def main() -> None:
    name, tokenizer, path = sys.argv[1:]
    encode = open_library(name, Path(tokenizer).read_text(encoding="utf-8"))
    held = list(batches(Path(path)))
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in held:
        encode(batch)
    print(time.perf_counter() - wall, time.process_time() - cpu)


if __name__ == "__main__":
    main()
