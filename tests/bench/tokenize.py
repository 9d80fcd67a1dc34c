"""`python tests/bench/tokenize.py`, which is `bench_tokenize.py`.

This file has the name of a module that the standard library imports, from here too while a script of this folder runs:
then it stands aside.
"""

import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

if __name__ == "tokenize":
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != FOLDER]
    del sys.modules[__name__]
    importlib.import_module(__name__)
elif __name__ == "__main__":
    sys.path[0] = str(FOLDER.parents[1])
    importlib.import_module("tests.bench.bench_tokenize").main()
