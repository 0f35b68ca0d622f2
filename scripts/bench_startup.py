"""Print the time of the light commands in a cold process (best of five, in milliseconds), and the number of packages per kind of installation.

    python scripts/bench_startup.py

Goals: ``sftchat --help`` within 150 ms, ``sftchat plugins`` within 250 ms, at most 25 packages for the light installation.
"""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

RUNS = 5
GOALS = {("--help",): 150, ("plugins",): 250}
EXTRAS = ("", "endpoint", "local")
PACKAGES = 25


def best(words: tuple[str, ...]) -> float:
    """Return the shortest elapsed time of five runs, in milliseconds, after one that fills the disk cache."""
    program = [str(Path(sys.executable).with_name("sftchat")), *words]
    times = []
    for _ in range(RUNS + 1):
        before = time.perf_counter()
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
        times.append(1000 * (time.perf_counter() - before))
    return min(times[1:])


def main() -> int:
    """Print one line per command; returns 1 when a goal is missed."""
    python = min(_python() for _ in range(RUNS))
    print(f"python -c pass      {python:6.0f} ms")
    missed = 0
    for words, goal in GOALS.items():
        took = best(words)
        missed += took > goal
        print(f"sftchat {' '.join(words):<12}{took:6.0f} ms  goal {goal} ms{'' if took <= goal else '  MISSED'}")
    for extra in EXTRAS:
        count = len(dependencies(extra))
        light = not extra
        missed += light and count > PACKAGES
        goal = f"  goal {PACKAGES}{'' if count <= PACKAGES else '  MISSED'}" if light else ""
        print(f"sftchat{f'[{extra}]' if extra else '':<12}{count:7} packages{goal}")
    return int(missed > 0)


def dependencies(extra: str = "") -> set[str]:
    """Return the names of the distributions that sftchat requires on this machine, without itself.

    Args:
        extra: An extra of sftchat.
    """
    found: set[str] = set()
    waiting = [("sftchat", extra)]
    while waiting:
        name, wanted = waiting.pop()
        for requirement in map(Requirement, requires(name) or []):
            below = canonicalize_name(requirement.name)
            if below not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": wanted})):
                found.add(below)
                waiting += [(below, further) for further in requirement.extras or [""]]
    return found


def _python() -> float:
    """Start the bare interpreter once."""
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return 1000 * (time.perf_counter() - before)


if __name__ == "__main__":
    sys.exit(main())
