"""`python tests/bench/step.py`, which is `bench_step.py`: with the repository in the path, not this folder.

This folder has a `tokenize.py`, as the standard library has.
"""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    importlib.import_module("tests.bench.bench_step").main()
