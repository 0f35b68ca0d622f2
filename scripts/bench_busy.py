"""Time training while other programs use every core, with sftchat's settings of OpenMP and with OpenMP's defaults.

    python scripts/bench_busy.py            # as many busy programs as there are cores
    python scripts/bench_busy.py --busy 0   # on a quiet machine, to measure the cost of short spinning

OpenMP's threads wait for each other in a loop (spinning). When another program runs on the core of the awaited thread, the loop wastes processor
time, so ``sftchat`` limits it (``GOMP_SPINCOUNT`` in ``sftchat.cli``). The two settings alternate, and the medians of the rounds are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from sftchat.models.manifest import read_manifest

OPENMP_DEFAULTS = {"GOMP_SPINCOUNT": "300000"}
"""libgomp's default: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html."""


def training_seconds(environment: dict[str, str], steps: int) -> float:
    """Train for some steps and return the seconds that the run reports."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = ["train", "relation", "-n", "3000", "--max-steps", str(steps), "--precision", "float32", "-o", str(run)]
        subprocess.run([sys.executable, "-m", "sftchat", *command], capture_output=True, check=True, env={**os.environ, **environment})
        manifest = read_manifest(run)
    assert manifest is not None
    return manifest.seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="programs that never wait")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    ours: list[float] = []
    theirs: list[float] = []
    with ExitStack() as stack:
        for _ in range(args.busy):
            stack.callback(stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"])).kill)
        for _ in range(args.rounds):
            ours.append(training_seconds({}, args.steps))
            theirs.append(training_seconds(OPENMP_DEFAULTS, args.steps))
    print(f"{args.steps} steps beside {args.busy} busy programs on {os.cpu_count()} cores, seconds of {args.rounds} rounds")
    print(f"sftchat   {ours}\nOpenMP    {theirs}\nratio     {statistics.median(theirs) / statistics.median(ours):.2f}")


if __name__ == "__main__":
    main()
