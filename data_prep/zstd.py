"""Zstandard: from the standard library where Python has it (3.14), from its backport before.

Its reader ends a file that was cut with an EOFError; the one of the package `zstandard` ends it quietly.
"""

import sys

if sys.version_info >= (3, 14):
    from compression.zstd import (
        CompressionParameter,
        DecompressionParameter,
        ZstdDecompressor,
        ZstdError,
        ZstdFile,
        compress,
    )
else:
    from backports.zstd import (
        CompressionParameter,
        DecompressionParameter,
        ZstdDecompressor,
        ZstdError,
        ZstdFile,
        compress,
    )

__all__ = [
    "LONG_WINDOW",
    "CompressionParameter",
    "DecompressionParameter",
    "ZstdDecompressor",
    "ZstdError",
    "ZstdFile",
    "compress",
]

# Takes files that were written with `zstd --long=31`, as large dumps are: one needs up to 2 GB to be read.
LONG_WINDOW = {DecompressionParameter.window_log_max: 31}
