"""Compare full fine-tuning and LoRA on the same rows of the relation task, item by item on the held-out sets of the demo.

    python scripts/full_and_lora.py -o runs/methods [--rows 12000] [--lora-rank 32]

The script only calls the command line, and prints each command before it runs. The table at the end is Markdown. Unknown options are passed to the
training of the adapter.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from command_line import compare, read_comparison, run_or_exit, table_line

MODEL, TASK, METRIC = "sftchat:nano", "relation", "f1"
HELD_OUT = {"new names": ("names=test",), "new names and new sentences": ("names=test", "forms=test")}


def main() -> None:
    """Train twice, compare on every set, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=12_000, help="training rows")
    parser.add_argument("--items", type=int, default=250, help="held-out items of each set")
    args, lora_options = parser.parse_known_args()
    folder: Path = args.output
    runs = {"full": folder / "full", "lora": folder / "lora"}
    for method, run in runs.items():
        if not (run / "sftchat.json").is_file():
            validation = ("--eval-steps", args.rows // 24, "--validation-items", 100)
            further = (*validation, *lora_options) if method == "lora" else validation
            run_or_exit("train", TASK, "--model", MODEL, "--rows", args.rows, "--seed", 1, "--method", method, *further, "-o", run)
        run_or_exit("inspect", run)  # its output includes the curve and the chosen step
    lines = []
    for name, options in HELD_OUT.items():
        items = folder / f"{name}.jsonl"
        option_words = [word for option in options for word in ("--option", option)]
        sampling = ("-n", args.items, "--seed", 2, *option_words)
        run_or_exit("data", "generate", TASK, *sampling, "--format", "evalset", "-o", items, "--overwrite")
        compare(runs["lora"], runs["full"], folder / "report", "--task", TASK, "--evalset", items)
        lines.append(table_line(name, read_comparison(folder / "report", METRIC)))
    print(f"\n| {METRIC} | full | LoRA | difference | p |\n|---|---:|---:|---:|---:|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
