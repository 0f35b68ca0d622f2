"""Measure the time and memory of the gate over a thousand and a hundred thousand stored replies.

    python scripts/bench_stored.py [--items 1000 100000] [--keep FOLDER]

The whole command is measured with all its processes, in elapsed time and in processor time, because elapsed time depends on other programs of the
machine. The items repeat two thousand generated rows of the relation task, each with a number in its passage, so that no result can be reused. Of 100
items, both replies are wrong on 15, only the baseline's on 3, and only the candidate's on 2. A wrong reply lacks the last triple, or has a triple where
there is none.
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

GENERATED_ROWS = 2000
BOTH_WRONG, OLD_WRONG, NEW_WRONG = 0.15, 0.03, 0.02


def write_files(folder: Path, items: int) -> None:
    """Write ``gold.jsonl``, ``old.jsonl`` and ``new.jsonl``."""
    examples = list(load_plugins().tasks["relation"].generate(GENERATED_ROWS, 5))
    rng = random.Random(0)
    bounds = (BOTH_WRONG, BOTH_WRONG + OLD_WRONG, BOTH_WRONG + OLD_WRONG + NEW_WRONG)
    names = ("gold", "old", "new")
    gold, old, new = (folder.joinpath(f"{name}.jsonl").open("w", encoding="utf-8") for name in names)
    with gold, old, new:
        for number in range(items):
            example = examples[number % GENERATED_ROWS]
            wrong_reply = _wrong_reply(example.gold or "")
            item_id = f"item-{number:07}"
            turns = [{"role": "user", "content": f"{example.messages[-1]['content']}（第{number}号）"}]
            gold.write(_json_line({"id": item_id, "messages": turns, "gold": example.gold, "metadata": dict(example.metadata)}))
            roll = rng.random()
            old.write(_reply_line(item_id, wrong_reply if roll < bounds[1] else example.gold))
            new.write(_reply_line(item_id, wrong_reply if roll < bounds[0] or bounds[1] <= roll < bounds[2] else example.gold))


def _wrong_reply(gold: str) -> str:
    if gold == "无":
        return "张三-李四:夫妻"
    return gold.rpartition("\n")[0] or "无"


def _json_line(row: object) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _reply_line(item_id: str, text: str | None) -> str:
    return _json_line({"id": item_id, "reply": text, "finish_reason": "stop", "prompt_tokens": 101, "completion_tokens": 17})


@dataclass(frozen=True, order=True)
class Cost:
    """Elapsed and processor seconds of a command, and the peak megabytes of all its processes together."""

    seconds: float
    processor: float
    megabytes: float


def run(words: Sequence[str]) -> Cost:
    """Run a command and measure it."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen([sys.executable, "-m", "sftchat", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(_process_megabytes(pid) for pid in _process_tree(process.pid)))
        time.sleep(0.1 if time.perf_counter() - start < 5 else 1.0)  # sampling takes time itself
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in (0, 1):
        raise SystemExit(process.communicate()[1].decode())
    return Cost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak)


def _process_tree(process: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield process
    for threads in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = threads.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _process_tree(int(child))


def _process_megabytes(process: int) -> float:
    """Return the memory of a process, in which shared memory is divided among the processes that share it (PSS of Linux)."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure(folder: Path, items: int) -> Iterator[str]:
    """Yield the rows of the table for one size."""
    if not (folder / "new.jsonl").exists():
        write_files(folder, items)
    gold, old, new, base = (str(folder / f"{name}.jsonl") for name in ("gold", "old", "new", "base"))
    common = ["eval", "--task", "relation", "--evalset", gold, "--quiet"]
    start_up = min(run(["plugins"]) for _ in range(3))
    baseline_cost = run([*common, "--replies", old, "--update-baseline", base])
    gate_costs = [run([*common, "--replies", new, "--baseline", base]) for _ in range(3 if items < 100_000 else 1)]
    for what, cost in (("write the baseline", baseline_cost), ("the gate", min(gate_costs))):
        beyond_start_up = f"{cost.seconds - start_up.seconds:.2f} | {cost.processor - start_up.processor:.2f}"
        yield f"| {items:,} | {what} | {beyond_start_up} | {cost.megabytes:,.0f} |"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--keep", type=Path, help="keep the generated files here, and use those of an earlier run")
    args = parser.parse_args()
    print("| items | what | seconds beyond start-up | processor seconds | peak MB |\n|---:|---|---:|---:|---:|")
    for items in args.items:
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.keep / str(items) if args.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            for row in measure(folder, items):
                print(row, flush=True)


if __name__ == "__main__":
    main()
