"""Fine-tune the embedded model on the general task and compare it with its base, kind by kind, on new phrasings and on new words and numbers.

    python scripts/general_task.py -o runs/general [--rows 20000]

The script only calls the command line, and prints each command before it runs. The table at the end is Markdown.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from command_line import compare, read_comparison, run_or_exit, table_line

MODEL = "sftchat:nano"
HELD_OUT = {"new phrasings": ("split=train", "phrasings=test"), "new phrasings, words and numbers": ("split=test",)}
KINDS = ("identity", "arithmetic", "counting", "ordering", "rewriting", "format", "reference")
SEED = 2


def compare_on(name: str, trained: Path, report: Path, *evalset: object) -> str:
    """Compare the models on one set, and return a row of the table."""
    compare(trained, MODEL, report, "--task", "general", *evalset)
    return table_line(name, read_comparison(report, "accuracy"))


def main() -> None:
    """Train, compare on each kind and on the hand-written evalset, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=20_000, help="training rows")
    parser.add_argument("--items", type=int, default=200, help="held-out items of each kind")
    args = parser.parse_args()
    folder: Path = args.output
    trained = folder / "run"
    if not (trained / "sftchat.json").is_file():
        run_or_exit("train", "general", "--model", MODEL, "--rows", args.rows, "-o", trained)
    lines = []
    for kind, (held_out, options) in product(KINDS, HELD_OUT.items()):
        items = folder / f"{kind}, {held_out}.jsonl"
        option_words = [word for option in (f"kinds={kind}", *options) for word in ("--option", option)]
        sampling = ("-n", args.items, "--seed", SEED, *option_words)
        run_or_exit("data", "generate", "general", *sampling, "--format", "evalset", "-o", items, "--overwrite")
        lines.append(compare_on(items.stem, trained, folder / "report", "--evalset", items))
    lines.append(compare_on("the evalset written by hand", trained, folder / "report"))
    print("\n| set | base | tuned | difference | p |\n|---|---:|---:|---:|---:|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
