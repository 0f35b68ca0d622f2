"""Time the gate over stored replies, from a thousand items to a hundred thousand: the whole command, and the memory of all its processes.

Elapsed time depends on other programs of the machine, so processor time is printed too.

    python scripts/bench_stored.py [--items 1000 100000] [--keep FOLDER]

Two thousand rows of the relation task are generated and varied: every item has its own passage, so that no result can be reused. 17 replies of
100 are wrong; on two of these items the baseline is right, and on three other items only the baseline is wrong. Wrong replies miss the last triple,
or have one where there is none.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftchat.plugins.manager import load_plugins

DISTINCT = 2000
BOTH_WRONG, OLD_WRONG, NEW_WRONG = 0.15, 0.03, 0.02


def make(folder: Path, items: int) -> None:
    """Write ``gold.jsonl``, ``old.jsonl`` and ``new.jsonl``."""
    examples = list(load_plugins().tasks["relation"].generate(DISTINCT, 5))
    draw = random.Random(0)
    bounds = (BOTH_WRONG, BOTH_WRONG + OLD_WRONG, BOTH_WRONG + OLD_WRONG + NEW_WRONG)
    names = ("gold", "old", "new")
    gold, old, new = (folder.joinpath(f"{name}.jsonl").open("w", encoding="utf-8") for name in names)
    with gold, old, new:
        for number in range(items):
            example = examples[number % DISTINCT]
            wrong = _wrong(example.gold or "")
            identity = f"item-{number:07}"
            turns = [{"role": "user", "content": f"{example.messages[-1]['content']}（第{number}号）"}]
            gold.write(_line({"id": identity, "messages": turns, "gold": example.gold, "metadata": dict(example.metadata)}))
            place = draw.random()
            old.write(_reply(identity, wrong if place < bounds[1] else example.gold))
            new.write(_reply(identity, wrong if place < bounds[0] or bounds[1] <= place < bounds[2] else example.gold))


def _wrong(gold: str) -> str:
    if gold == "无":
        return "张三-李四:夫妻"
    return gold.rpartition("\n")[0] or "无"


def _line(row: object) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _reply(identity: str, text: str | None) -> str:
    return _line({"id": identity, "reply": text, "finish_reason": "stop", "prompt_tokens": 101, "completion_tokens": 17})


@dataclass(frozen=True, order=True)
class Cost:
    """Elapsed and processor seconds of a command, and the peak megabytes of all its processes together."""

    seconds: float
    processor: float
    megabytes: float


def run(words: Sequence[str]) -> Cost:
    """Run a command; shared memory is divided among its processes."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen([sys.executable, "-m", "sftchat", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(_megabytes(one) for one in _family(process.pid)))
        time.sleep(0.1 if time.perf_counter() - start < 5 else 1.0)  # sampling takes time itself
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in (0, 1):
        raise SystemExit(process.communicate()[1].decode())
    return Cost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak)


def _family(process: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield process
    for threads in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = threads.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


def _megabytes(process: int) -> float:
    """Return the memory of a process with its part of shared memory (PSS of Linux)."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure(folder: Path, items: int) -> Iterator[str]:
    """Yield the rows of the table for one size."""
    if not (folder / "new.jsonl").exists():
        make(folder, items)
    gold, old, new, base = (str(folder / f"{name}.jsonl") for name in ("gold", "old", "new", "base"))
    common = ["eval", "--task", "relation", "--evalset", gold, "--quiet"]
    start = min(run(["plugins"]) for _ in range(3))
    written = run([*common, "--replies", old, "--update-baseline", base])
    gated = [run([*common, "--replies", new, "--baseline", base]) for _ in range(3 if items < 100_000 else 1)]
    for what, cost in (("write the baseline", written), ("the gate", min(gated))):
        beyond = f"{cost.seconds - start.seconds:.2f} | {cost.processor - start.processor:.2f}"
        yield f"| {items:,} | {what} | {beyond} | {cost.megabytes:,.0f} |"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--keep", type=Path, help="make the files here, and use those that are there")
    args = parser.parse_args()
    print("| items | what | seconds beyond start-up | of processors | peak MB |\n|---:|---|---:|---:|---:|")
    for items in args.items:
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.keep / str(items) if args.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            for row in measure(folder, items):
                print(row, flush=True)


if __name__ == "__main__":
    main()
