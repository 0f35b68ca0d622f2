"""Fine-tune the embedded model on the general task and compare it with its base, kind by kind: in phrasings never trained on, and on words and numbers
never trained on either.

    python scripts/general_task.py -o runs/general [--rows 20000]

Only calls the command line, and prints each command before it runs; the table at the end is Markdown.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

from command_line import must, run

MODEL = "sftchat:nano"
HELD_OUT = {"new phrasings": ("split=train", "phrasings=test"), "new phrasings, words and numbers": ("split=test",)}
KINDS = ("identity", "arithmetic", "counting", "ordering", "rewriting", "format", "reference")
SEED = 2


def compared(report: Path) -> dict[str, Any]:
    """The comparison of accuracy in a report."""
    (comparison,) = json.loads(report.read_text(encoding="utf-8"))["comparisons"]
    found: dict[str, Any] = next(metric for metric in comparison["metrics"] if metric["name"] == "accuracy")
    return found


def line(name: str, trained: Path, report: Path, *evalset: object) -> str:
    """Compare on one set; returns a line of the table."""
    if (code := run("eval", trained, "--task", "general", "--baseline", MODEL, *evalset, "-o", report, "--overwrite", "--quiet")) > 1:
        raise SystemExit(code)
    found = compared(report / "report.json")
    difference = f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
    p = f"{found['p']:.3f}" if found["p"] >= 0.001 else "< 0.001"
    return f"| {name} | {found['baseline']:.3f} | {found['candidate']:.3f} | {difference} | {p} |"


def main() -> None:
    """Train, compare on every kind and on the evalset written by hand, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=20_000, help="training rows")
    parser.add_argument("--items", type=int, default=200, help="held-out items of each kind")
    args = parser.parse_args()
    folder: Path = args.output
    trained = folder / "run"
    if not (trained / "sftchat.json").is_file():
        must("train", "general", "--model", MODEL, "--rows", args.rows, "-o", trained)
    lines = []
    for kind, (held_out, options) in product(KINDS, HELD_OUT.items()):
        items = folder / f"{kind}, {held_out}.jsonl"
        given = [word for option in (f"kinds={kind}", *options) for word in ("--option", option)]
        must("data", "generate", "general", "-n", args.items, "--seed", SEED, "--format", "evalset", *given, "-o", items, "--overwrite")
        lines.append(line(items.stem, trained, folder / "report", "--evalset", items))
    lines.append(line("the evalset written by hand", trained, folder / "report"))
    print("\n| set | base | tuned | difference | p |\n|---|---:|---:|---:|---:|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
