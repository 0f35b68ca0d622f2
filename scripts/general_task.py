"""Fine-tune the embedded model on the general task and compare it with its base, kind by kind, on words, numbers and phrasings never trained on.

    python scripts/general_task.py -o runs/general [--rows 20000]

Only calls the command line, and prints each command before it runs; the table at the end is Markdown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from command_line import must, run

MODEL = "sftchat:nano"
KINDS = ("identity", "arithmetic", "counting", "ordering", "rewriting", "format", "reference")
SEED = 2


def compared(report: Path) -> dict[str, Any]:
    """The comparison of accuracy in a report."""
    (comparison,) = json.loads(report.read_text(encoding="utf-8"))["comparisons"]
    found: dict[str, Any] = next(metric for metric in comparison["metrics"] if metric["name"] == "accuracy")
    return found


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
    for kind in (*KINDS, "general"):
        items = folder / f"{kind}.jsonl"
        evalset: tuple[object, ...] = ()
        if kind in KINDS:
            options = ("--option", f"kinds={kind}", "--option", "split=test")
            must(
                "data", "generate", "general", "-n", args.items, "--seed", SEED, "--format", "evalset", *options, "-o", items, "--overwrite"
            )
            evalset = ("--evalset", items)
        report = folder / f"report-{kind}"
        code = run("eval", trained, "--task", "general", "--baseline", MODEL, *evalset, "-o", report, "--overwrite", "--quiet")
        found = compared(report / "report.json")
        verdict = {0: "better or equal", 1: "worse", 4: "undecided"}.get(code, f"exit code {code}")
        name = f"{kind}, held out" if kind in KINDS else "evalset written by hand"
        lines.append(
            f"| {name} | {found['baseline']:.3f} | {found['candidate']:.3f} | {found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}] "
            f"| {found['p']:.4f} | {verdict} |"
        )
    print("\n| set | base | tuned | difference | p | gate |\n|---|---:|---:|---:|---:|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
