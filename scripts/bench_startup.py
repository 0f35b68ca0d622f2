"""Print how long the light commands take from a cold process: best of five, in milliseconds.

    python scripts/bench_startup.py

Goals: ``sftchat --help`` within 150 ms, ``sftchat plugins`` within 250 ms.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

RUNS = 5
GOALS = {("--help",): 150, ("plugins",): 250}


def best(words: tuple[str, ...]) -> float:
    """Shortest wall-clock time of five runs, in milliseconds, after one that warms the disk."""
    program = [str(Path(sys.executable).with_name("sftchat")), *words]
    times = []
    for _ in range(RUNS + 1):
        before = time.perf_counter()
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
        times.append(1000 * (time.perf_counter() - before))
    return min(times[1:])


def main() -> int:
    """Print a line a command; exit with 1 when a goal is missed."""
    python = min(_python() for _ in range(RUNS))
    print(f"python -c pass      {python:6.0f} ms")
    missed = 0
    for words, goal in GOALS.items():
        took = best(words)
        missed += took > goal
        print(f"sftchat {' '.join(words):<12}{took:6.0f} ms  goal {goal} ms{'' if took <= goal else '  MISSED'}")
    return int(missed > 0)


def _python() -> float:
    """One start of the bare interpreter."""
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return 1000 * (time.perf_counter() - before)


if __name__ == "__main__":
    sys.exit(main())
