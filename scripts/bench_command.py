"""Time the whole command including start-up: ``sftchat eval`` and lm-evaluation-harness on the same checkpoint and items.

    python scripts/bench_command.py --model RUN --harness ENVIRONMENT/bin/lm_eval

Both render the same prompts, decode greedily up to the same number of tokens and stop at the same text. The harness runs once per batch
size; sftchat runs twice, first with an empty reply cache and then with every reply cached. Peak memory is that of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sftchat.models.loading import load_tokenizer
from sftchat.models.reference import resolve
from sftchat.plugins.manager import load_plugins
from sftchat.templates.renderer import choose_renderer

TASK = """task: sftchat_items
dataset_path: json
dataset_kwargs: {{data_files: {{test: {items}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{gold}}}}"
generation_kwargs: {{until: ["<|im_end|>"], do_sample: false, max_gen_toks: {limit}}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 0}}
"""


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds and peak megabytes of a command.

    Raises:
        SystemExit: When it fails, with the end of its output.
    """
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} exited with {process.returncode}:\n{said.read().decode()[-2000:]}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    """Generate the items, run all commands, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a checkpoint folder")
    parser.add_argument("--task", default="relation")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--harness", help="the lm_eval program of an environment that has it")
    parser.add_argument("--batch-sizes", nargs="*", default=["1", "64", "auto"], help="of the harness; 1 is its default")
    parser.add_argument("--rounds", type=int, default=2, help="the best of so many counts")
    args = parser.parse_args()
    task = load_plugins().task(args.task)
    examples = list(task.generate(args.items, 7))
    reference = resolve(args.model)
    folder, renderer = reference.folder, choose_renderer(load_tokenizer(reference), preferred=task.template)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        environment = os.environ | {"SFTCHAT_CACHE_DIR": str(root / "cache"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hub")}
        rows = [{"id": e.id, "messages": e.messages, "gold": e.gold} for e in examples]
        _write(root / "items.jsonl", rows)
        _write(root / "prompts.jsonl", [{"prompt": renderer.prompt_text(e.messages), "gold": e.gold} for e in examples])
        ours = [
            sys.executable,
            "-m",
            "sftchat",
            "eval",
            str(folder),
            "--task",
            args.task,
            "--evalset",
            str(root / "items.jsonl"),
            "--quiet",
        ]
        found = {"sftchat eval": min(measured([*ours, "--fresh"], environment) for _ in range(args.rounds))}
        measured(ours, environment)
        found["sftchat eval, every reply stored"] = min(measured(ours, environment) for _ in range(args.rounds))
        if args.harness:
            (root / "tasks").mkdir()
            (root / "tasks" / "items.yaml").write_text(
                TASK.format(items=root / "prompts.jsonl", limit=task.sampling.max_new_tokens), encoding="utf-8"
            )
            arguments = [
                "--model",
                "hf",
                "--model_args",
                f"pretrained={folder},dtype=float32",
                "--tasks",
                "sftchat_items",
                "--device",
                "cpu",
            ]
            for size in args.batch_sizes:
                theirs = [args.harness, *arguments, "--include_path", str(root / "tasks"), "--batch_size", size]
                found[f"lm-evaluation-harness, batch {size}"] = min(measured(theirs, environment) for _ in range(args.rounds))
    best = min((seconds for name, (seconds, _) in found.items() if name.startswith("lm-")), default=None)
    print(f"{args.items} items of task {args.task}, {folder}\n")
    print("| | seconds | peak MB | times the harness's best |\n|---|---:|---:|---:|")
    for name, (seconds, memory) in found.items():
        print(f"| {name} | {seconds:.1f} | {memory:.0f} | {f'{best / seconds:.1f}' if best else '–'} |")


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
