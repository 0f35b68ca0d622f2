"""Measure training on the best of a checkpoint's own replies: train a weak checkpoint, sample replies, select by the scorer, train on them.

    python scripts/best_of.py -o runs/best-of
    python scripts/best_of.py -o runs/best-of -k 8     # longer

The script only calls the command line and prints each command before it runs. The last one compares the two checkpoints item by item on unseen
rows, and its exit code is the script's: 0 when nothing got worse. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from command_line import comparison, must, run, table_line

METRIC = "f1"


def main() -> int:
    """Train a weak checkpoint, select the best of its samples, train on them, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=3000, help="rows the weak checkpoint is trained on")
    parser.add_argument("--prompts", type=int, default=3000, help="prompts it answers")
    parser.add_argument("--items", type=int, default=300, help="held-out rows")
    parser.add_argument("--epochs", type=float, default=2, help="passes over its best replies")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="of the second training")
    parser.add_argument("-k", type=int, default=4, help="replies to every prompt")
    args = parser.parse_args()
    folder: Path = args.output
    folder.mkdir(parents=True, exist_ok=True)
    weak, better, best = folder / "weak", folder / "better", folder / "best.jsonl"
    prompts, held_out = folder / "prompts.jsonl", folder / "held-out.jsonl"
    if not (weak / "sftchat.json").is_file():
        must("train", "relation", "--rows", args.rows, "--epochs", 1, "-o", weak)
    must("data", "generate", "relation", "-n", args.prompts, "--seed", 1, "-o", prompts, "--overwrite")
    must("data", "generate", "relation", "-n", args.items, "--seed", 2, "--format", "evalset", "-o", held_out, "--overwrite")
    must("data", "check", prompts, held_out, "--task", "relation")
    must("data", "check", held_out, "--against", prompts)
    # the gold reply is only for scoring: a row is one of the model's own replies, and only one without errors
    must("data", "best-of", "relation", weak, "--prompts", prompts, "-k", args.k, "--min-score", 1, "-o", best, "--overwrite")
    if not (better / "sftchat.json").is_file():
        how = ("--epochs", args.epochs, "--learning-rate", args.learning_rate)
        must("train", "relation", "--model", weak, "--data", best, *how, "-o", better)
    code = run("eval", better, "--task", "relation", "--baseline", weak, "--evalset", held_out, "-o", folder / "report", "--overwrite")
    print(f"\n| {METRIC} on rows neither has seen | before | after | difference | p |\n|---|---:|---:|---:|---:|")
    print(table_line(f"best of {args.k} on {args.prompts:,} prompts", comparison(folder / "report", METRIC)))
    return code


if __name__ == "__main__":
    sys.exit(main())
