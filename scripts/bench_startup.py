"""Print the start-up time of light commands and the number of packages of each installation.

    python scripts/bench_startup.py

Each command runs in new processes; the best of five counts. Goals: ``sftchat --help`` within 150 ms, ``sftchat plugins`` within 250 ms, at most 25
packages for the light installation.
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
MAX_LIGHT_PACKAGES = 25


def best_milliseconds(words: tuple[str, ...]) -> float:
    """Return the shortest elapsed time of five runs, in milliseconds; a run before them fills the disk cache."""
    program = [str(Path(sys.executable).with_name("sftchat")), *words]
    times = []
    for _ in range(RUNS + 1):
        before = time.perf_counter()
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
        times.append(1000 * (time.perf_counter() - before))
    return min(times[1:])


def main() -> int:
    """Print one line per command and installation; return 1 when a goal is missed."""
    print(f"python -c pass      {min(_interpreter_milliseconds() for _ in range(RUNS)):6.0f} ms")
    missed = 0
    for words, goal in GOALS.items():
        milliseconds = best_milliseconds(words)
        is_missed = milliseconds > goal
        missed += is_missed
        print(f"sftchat {' '.join(words):<12}{milliseconds:6.0f} ms  goal {goal} ms{'  MISSED' if is_missed else ''}")
    for extra in EXTRAS:
        count = len(dependencies(extra))
        line = f"sftchat{f'[{extra}]' if extra else '':<12}{count:7} packages"
        if not extra:
            is_missed = count > MAX_LIGHT_PACKAGES
            missed += is_missed
            line += f"  goal {MAX_LIGHT_PACKAGES}{'  MISSED' if is_missed else ''}"
        print(line)
    return int(missed > 0)


def dependencies(extra: str = "") -> set[str]:
    """Return the names of the distributions that sftchat requires on this machine, without itself.

    Args:
        extra: An extra of sftchat.
    """
    names: set[str] = set()
    unread = [("sftchat", extra)]
    while unread:
        name, requested_extra = unread.pop()
        for requirement in map(Requirement, requires(name) or []):
            dependency = canonicalize_name(requirement.name)
            if dependency not in names and (requirement.marker is None or requirement.marker.evaluate({"extra": requested_extra})):
                names.add(dependency)
                unread += [(dependency, dependency_extra) for dependency_extra in requirement.extras or [""]]
    return names


def _interpreter_milliseconds() -> float:
    """Return the milliseconds of one start of the bare interpreter."""
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return 1000 * (time.perf_counter() - before)


if __name__ == "__main__":
    sys.exit(main())
