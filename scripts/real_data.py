"""Fine-tune on hand-labelled rows, and score the base and the tuned model on every eighth row, which is held out.

    python scripts/real_data.py rows.jsonl --model sftchat:nano --task relation -o runs/real [--epochs 3] [--method lora]

The script only calls the command line, and prints each command before it runs. Unknown options are passed to the training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from command_line import run

HELD_OUT_EVERY = 8
"""Every row whose number is a multiple of this is held out."""


def main() -> int:
    """Split the rows, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--model", default="sftchat:nano")
    parser.add_argument("--task", default="relation")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args, train_options = parser.parse_known_args()
    lines = [line for line in args.rows.read_text(encoding="utf-8").splitlines() if line.strip()]
    args.output.mkdir(parents=True)
    train, test = args.output / "train.jsonl", args.output / "held-back.jsonl"
    train.write_text("\n".join(line for i, line in enumerate(lines) if i % HELD_OUT_EVERY) + "\n", encoding="utf-8")
    test.write_text("\n".join(line for i, line in enumerate(lines) if i % HELD_OUT_EVERY == 0) + "\n", encoding="utf-8")
    run("data", "check", str(train), str(test), "--task", args.task, "--quiet")
    code = run("train", args.task, "--model", args.model, "--data", str(train), "-o", str(args.output / "run"), *train_options)
    if code:
        return code
    baseline = ("--baseline", args.model)
    return run("eval", str(args.output / "run"), *baseline, "--evalset", str(test), "-o", str(args.output / "report"), "--quiet")


if __name__ == "__main__":
    sys.exit(main())
