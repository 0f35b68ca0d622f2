"""Fuzz every reader of outside data, each target for some minutes; exits with 1 at the first finding and prints its input.

    scripts/fuzz MINUTES [TARGET…] [--coverage | --distil]

Without ``--coverage`` Hypothesis generates and shrinks; findings are kept in build/fuzz, which git ignores, and run first the next time.
With it Atheris (libFuzzer) mutates bytes by the coverage of sftchat's lines, starting with tests/corpus/TARGET.jsonl, and keeps inputs with new coverage in
build/fuzz/coverage/TARGET. Atheris is installed with ``uv pip install --group fuzz``; it has wheels only for Linux on x86-64.
``--distil`` copies inputs from there into tests/corpus that reach lines which no smaller input reaches.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BUILD = Path(__file__).parents[2] / "build" / "fuzz"


def by_hypothesis(name: str, minutes: float) -> int:
    """Run a target on generated input until its time is over; returns the number of inputs."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.database import DirectoryBasedExampleDatabase

    from tests.fuzz.everything import TARGETS
    from tests.fuzz.target import attempt

    target, tried, until = TARGETS[name], 0, time.monotonic() + 60 * minutes
    attempt(target, b"", seconds=0)  # the first call imports libraries
    while time.monotonic() < until:

        @settings(
            max_examples=500,
            deadline=None,
            database=DirectoryBasedExampleDatabase(BUILD / name),
            suppress_health_check=list(HealthCheck),
            phases=[Phase.reuse, Phase.generate, Phase.shrink],
        )
        @given(target.inputs)
        def attack(content: bytes) -> None:
            nonlocal tried
            tried += 1
            if time.monotonic() < until:
                attempt(target, content)

        attack()
    return tried


def by_coverage(name: str, minutes: float) -> int:
    """Run a target in libFuzzer in a separate process, which libFuzzer ends; returns its exit code."""
    try:
        import atheris
    except ImportError:
        sys.exit("--coverage needs Atheris: uv pip install --group fuzz (Linux on x86-64)")
    with atheris.instrument_imports(include=["sftchat"]):
        from tests.fuzz.everything import TARGETS, corpus_of
        from tests.fuzz.target import attempt

        target, folder = TARGETS[name], BUILD / "coverage" / name
        attempt(target, b"", seconds=0)  # late imports are instrumented too, and their time is not that of an input
    folder.mkdir(parents=True, exist_ok=True)
    words = BUILD / f"{name}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.tokens or ("{",)), encoding="ascii")
    arguments = [f"-max_total_time={60 * minutes:.0f}", "-timeout=20", "-rss_limit_mb=6000", "-max_len=4096", f"-dict={words}", f"-artifact_prefix={BUILD}/{name}-", "-print_final_stats=1"]  # fmt: skip
    seeds = BUILD / "seeds" / name
    seeds.mkdir(parents=True, exist_ok=True)
    for input_name, content in corpus_of(name).items():
        (seeds / input_name).write_bytes(content)

    def attack(content: bytes) -> None:
        attempt(target, content, seconds=0)

    atheris.Setup([sys.argv[0], *arguments, str(folder), str(seeds)], attack)
    atheris.Fuzz()
    return 0


def _escaped(word: str) -> str:
    """Format a word for a libFuzzer dictionary."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word.encode())


def distil(name: str) -> int:
    """Copy inputs into the corpus that reach lines which no smaller input reaches; returns the size of the corpus."""
    from tests.fuzz.everything import TARGETS, add_to_corpus, corpus_of
    from tests.fuzz.target import attempt

    lines: set[Any] = set()

    def trace(frame: Any, event: str, _: Any) -> Any:
        if "/sftchat" not in frame.f_code.co_filename:
            return None
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    known = corpus_of(name)
    found = sorted((path.read_bytes() for path in (BUILD / "coverage" / name).glob("*")), key=len)
    attempt(TARGETS[name], b"")  # one-time work does not count
    for content in [*known.values(), *found]:
        before = len(lines)
        sys.settrace(trace)
        try:
            attempt(TARGETS[name], content, seconds=0)
        finally:
            sys.settrace(None)
        if len(lines) > before and len(content) <= LARGEST and content not in known.values():
            add_to_corpus(name, hashlib.sha1(content, usedforsecurity=False).hexdigest()[:12], content)
    return len(corpus_of(name))


LARGEST = 1500
"""Maximum bytes of an input that is added to the corpus automatically."""


def main() -> int:
    """Fuzz the chosen targets."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float, help="for each target")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of them when none is named")
    parser.add_argument("--coverage", action="store_true", help="let Atheris guide what is tried")
    parser.add_argument("--distil", action="store_true", help="take up into tests/corpus what --coverage found, and end")
    args = parser.parse_intermixed_args()
    if args.coverage and len(args.targets) == 1:
        return by_coverage(args.targets[0], args.minutes)
    from tests.fuzz.everything import TARGETS

    for name in args.targets or TARGETS:
        if args.distil:
            print(f"{name}: {distil(name)} inputs", flush=True)
            continue
        print(f"{name} …", flush=True)
        if args.coverage:
            code = subprocess.run([sys.executable, "-m", "tests.fuzz", str(args.minutes), name, "--coverage"], check=False).returncode
            if code:
                return 1
            print(f"{name}: nothing found", flush=True)
        else:
            print(f"{name}: {by_hypothesis(name, args.minutes):,} inputs, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
