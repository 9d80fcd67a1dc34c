"""How long `pretrain --help` and `pretrain validate RUN.yaml` take: `python tests/bench/bench_start.py RUN.yaml`."""

import statistics
import subprocess
import sys
import time

RUNS = 9
TARGET_SECONDS = {"--help": 0.5, "validate": 1.0}


def seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pipeline.cli", *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    for arguments in (["--help"], ["validate", sys.argv[1]]):
        taken = [seconds(*arguments) for _ in range(RUNS)]
        print(
            f"pretrain {arguments[0]}: median {statistics.median(taken):.2f} s, least {min(taken):.2f} s, most "
            f"{max(taken):.2f} s of {RUNS} runs; target {TARGET_SECONDS[arguments[0]]} s"
        )


if __name__ == "__main__":
    main()
