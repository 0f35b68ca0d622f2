"""Time ``sftchat eval`` and lm-evaluation-harness, including start-up, on the same checkpoint and items.

    python scripts/bench_command.py --model RUN --harness ENVIRONMENT/bin/lm_eval

Both render the same prompts, decode greedily up to the same number of tokens and stop at the same text. The harness runs once per batch
size. sftchat runs without cached replies, and with every reply cached. Peak memory is that of the process and its children.
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

HARNESS_TASK = """task: sftchat_items
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


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds and peak megabytes of a command.

    Raises:
        SystemExit: The command failed; the message has the end of its output.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)} exited with {process.returncode}:\n{output.read().decode()[-2000:]}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    """Generate the items, run all commands, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a checkpoint folder")
    parser.add_argument("--task", default="relation")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--harness", help="the lm_eval program of an environment that has it")
    parser.add_argument("--batch-sizes", nargs="*", default=["1", "64", "auto"], help="batch sizes of the harness; 1 is its default")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each command; the best counts")
    args = parser.parse_args()
    task = load_plugins().task(args.task)
    examples = list(task.generate(args.items, 7))
    reference = resolve(args.model)
    folder, renderer = reference.folder, choose_renderer(load_tokenizer(reference), preferred=task.template)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        environment = os.environ | {"SFTCHAT_CACHE_DIR": str(root / "cache"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hub")}
        rows = [{"id": e.id, "messages": e.messages, "gold": e.gold} for e in examples]
        _write_jsonl(root / "items.jsonl", rows)
        _write_jsonl(root / "prompts.jsonl", [{"prompt": renderer.prompt_text(e.messages), "gold": e.gold} for e in examples])
        evaluation = ["eval", str(folder), "--task", args.task, "--evalset", str(root / "items.jsonl"), "--quiet"]
        sftchat_command = [sys.executable, "-m", "sftchat", *evaluation]
        measurements = {"sftchat eval": min(measure([*sftchat_command, "--fresh"], environment) for _ in range(args.rounds))}
        measure(sftchat_command, environment)  # fills the cache
        measurements["sftchat eval, every reply cached"] = min(measure(sftchat_command, environment) for _ in range(args.rounds))
        if args.harness:
            (root / "tasks").mkdir()
            (root / "tasks" / "items.yaml").write_text(
                HARNESS_TASK.format(items=root / "prompts.jsonl", limit=task.sampling.max_new_tokens), encoding="utf-8"
            )
            model = ["--model", "hf", "--model_args", f"pretrained={folder},dtype=float32", "--device", "cpu"]
            tasks = ["--tasks", "sftchat_items", "--include_path", str(root / "tasks")]
            for size in args.batch_sizes:
                harness_command = [args.harness, *model, *tasks, "--batch_size", size]
                measurements[f"lm-evaluation-harness, batch {size}"] = min(
                    measure(harness_command, environment) for _ in range(args.rounds)
                )
    best_harness_seconds = min((seconds for name, (seconds, _) in measurements.items() if name.startswith("lm-")), default=None)
    print(f"{args.items} items of task {args.task}, {folder}\n")
    print("| | seconds | peak MB | times the harness's best |\n|---|---:|---:|---:|")
    for name, (seconds, memory) in measurements.items():
        print(f"| {name} | {seconds:.1f} | {memory:.0f} | {f'{best_harness_seconds / seconds:.1f}' if best_harness_seconds else '–'} |")


def _write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
