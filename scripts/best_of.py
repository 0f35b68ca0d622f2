"""Measure training on the best of a checkpoint's own replies.

    python scripts/best_of.py -o runs/best-of
    python scripts/best_of.py -o runs/best-of -k 8     # longer

The script trains a weak checkpoint, samples its replies, selects the best by the scorer, and trains on them. It only calls the command line, and
prints each command before it runs. The last command compares the two checkpoints item by item on unseen rows; its exit code is that of the script:
0 when nothing got worse. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from command_line import read_comparison, run, run_or_exit, table_line

METRIC = "f1"


def main() -> int:
    """Train, sample, select, train again, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=3000, help="rows for training the weak checkpoint")
    parser.add_argument("--prompts", type=int, default=3000, help="prompts for the weak checkpoint")
    parser.add_argument("--items", type=int, default=300, help="held-out rows")
    parser.add_argument("--epochs", type=float, default=2, help="passes over the best replies")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="learning rate of the second training")
    parser.add_argument("-k", type=int, default=4, help="replies to each prompt")
    args = parser.parse_args()
    folder: Path = args.output
    folder.mkdir(parents=True, exist_ok=True)
    weak, better, best = folder / "weak", folder / "better", folder / "best.jsonl"
    prompts, held_out = folder / "prompts.jsonl", folder / "held-out.jsonl"
    if not (weak / "sftchat.json").is_file():
        run_or_exit("train", "relation", "--rows", args.rows, "--epochs", 1, "-o", weak)
    run_or_exit("data", "generate", "relation", "-n", args.prompts, "--seed", 1, "-o", prompts, "--overwrite")
    run_or_exit("data", "generate", "relation", "-n", args.items, "--seed", 2, "--format", "evalset", "-o", held_out, "--overwrite")
    run_or_exit("data", "check", prompts, held_out, "--task", "relation")
    run_or_exit("data", "check", held_out, "--against", prompts)
    # with --min-score 1 only replies without errors become rows
    run_or_exit("data", "best-of", "relation", weak, "--prompts", prompts, "-k", args.k, "--min-score", 1, "-o", best, "--overwrite")
    if not (better / "sftchat.json").is_file():
        options = ("--epochs", args.epochs, "--learning-rate", args.learning_rate)
        run_or_exit("train", "relation", "--model", weak, "--data", best, *options, "-o", better)
    code = run("eval", better, "--task", "relation", "--baseline", weak, "--evalset", held_out, "-o", folder / "report", "--overwrite")
    print(f"\n| {METRIC} on unseen rows | before | after | difference | p |\n|---|---:|---:|---:|---:|")
    print(table_line(f"best of {args.k} on {args.prompts:,} prompts", read_comparison(folder / "report", METRIC)))
    return code


if __name__ == "__main__":
    sys.exit(main())
