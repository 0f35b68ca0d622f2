"""Compute the same tasks with lm-evaluation-harness and with this program, on the CPU in float32, and compare the numbers.

    python scripts/compare_lm_eval.py [MODEL] [--harness FOLDER]

MODEL is a checkpoint folder or ``sftchat:NAME`` with files on this machine. Four small tasks are written in lm-evaluation-harness' format into a temporary folder:

    capitals     multiple choice, four names of different lengths, two few-shot rows
    endings      multiple choice, endings of several tokens and different lengths
    answers      generation, greedy, exact match, two few-shot rows
    texts        rolling log-likelihood of texts; for a context of at most 2,048 tokens, one of them is longer

Both programs get raw prompts. Accuracies and exact match must be equal to the last digit, and replies must be the same. Log-likelihoods and perplexities
must agree up to the rounding of float32, which depends on what shares a batch: to 1e-4, or 2e-5 of the value where that is more, and perplexities to 1e-5
of theirs. The script exits with 1 unless they do. The harness is installed into an environment of its own in the cache folder, unless ``--harness`` names one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contestants import HARNESS, environment_python

from sftchat._util.files import cache_folder
from sftchat.data.few_shot import FewShot
from sftchat.data.task_file import make_task
from sftchat.errors import SftchatError
from sftchat.evaluation.evaluate import evaluate
from sftchat.inference.open import load_engine
from sftchat.likelihood import parse_likelihoods
from sftchat.models.local_files import fetched
from sftchat.models.reference import resolve
from sftchat.scorers import exact, multiple_choice, perplexity
from sftchat.task import Task
from sftchat.types import Example, Message, SamplingParams

CAPITALS = {
    "France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi", "Peru": "Lima", "Canada": "Ottawa", "Egypt": "Cairo", "Norway": "Oslo", "India": "New Delhi",
    "Malaysia": "Kuala Lumpur", "Sri Lanka": "Sri Jayawardenepura Kotte", "Spain": "Madrid", "Bosnia and Herzegovina": "Sarajevo", "Chile": "Santiago",
    "Mexico": "Mexico City", "Ethiopia": "Addis Ababa", "China": "Beijing", "Cuba": "Havana", "Ghana": "Accra", "Iceland": "Reykjavik", "Greece": "Athens",
    "Brunei": "Bandar Seri Begawan", "Italy": "Rome", "Burkina Faso": "Ouagadougou", "Poland": "Warsaw",
}  # fmt: skip
ENDINGS = (
    ("She put the kettle on the stove because", "she wanted tea", "the moon is made of very old green cheese", "blue"),
    ("The dog ran after the ball and", "brought it back to the boy", "solved an equation", "sang"),
    ("It rained all day, so the children", "played inside the house until dinner was ready", "swam on the roof", "became trains"),
    ("When the bread was golden brown, the baker", "took it out of the oven", "painted it with ink and sold it as a stone", "slept"),
    ("The train was late, therefore many people", "missed their connection", "grew taller than the station and its tower", "rhymed"),
    ("He could not find his glasses although", "they were on his nose", "seven is a prime number in every known language", "yes"),
    ("After the long winter the first flowers", "appeared in the garden", "were arrested for speeding", "typed a letter to the bank"),
    ("The teacher wrote the word on the board and", "asked the class to read it aloud", "ate it", "flew to Mars without a ticket"),
    ("To open the door she turned", "the key", "into a large and friendly elephant with an umbrella", "Tuesday"),
    ("The library closes at six, so", "we should return the books now", "fish", "the clouds will vote for a new mayor"),
    ("The baby cried until", "her mother picked her up", "the bridge was elected as the king of all the rivers", "north"),
    ("Water boils at one hundred degrees and", "freezes at zero", "writes long letters to its cousin in the desert", "dances"),
    ("He saved a little money every month and", "after three years bought a car", "ate the calendar", "green"),
    ("The lights went out, and for a moment", "nobody could see anything", "the soup apologised to the spoon for the weather", "two"),
    ("The cat sat by the window", "watching the birds", "and filed its taxes for the year before last", "equals"),
    ("小明每天早上七点起床,然后", "去学校上课", "把月亮装进口袋里带到海边去卖给鱼", "三角形"),
    ("因为下雨了,所以她", "带了一把伞", "变成了一座很高很高的山和一条河", "电视"),
)
TEXTS = (
    "The sun rises in the east and sets in the west.",
    "A recipe for pancakes: mix flour, eggs and milk, let the batter rest, and fry it in a hot pan with a little butter.",
    "小明今天去了图书馆,借了三本书。",
    "def add(a, b):\n    return a + b\n\nprint(add(2, 3))",
    "In 1969 two people walked on the Moon for the first time. Millions watched it on television, and many remember where they were.",
    "老师问:“谁知道答案?”学生们都举起了手。",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.",
)
LONGEST_CONTEXT = 2048
"""Context length up to which a text longer than the context is computed too."""
RENAMED = {"acc": "accuracy", "acc_norm": "accuracy_characters", "acc_bytes": "accuracy_bytes", "exact_match": "accuracy"}
"""Our metric for each metric of the harness whose value must be equal; the others have the same name in both."""
PERPLEXITIES = ("word_perplexity", "bits_per_byte")
LIKELIHOOD_TOLERANCE, RELATIVE_TOLERANCE, PERPLEXITY_TOLERANCE = 1e-4, 2e-5, 1e-5
"""Largest differences of log-likelihoods, absolute or as a share, whichever is larger, and of perplexities. In float32, transformers' own differ from
those in float64 by 1.4e-4 for the longest names with SmolLM2."""


@dataclass(frozen=True)
class Compared:
    """A task for both programs.

    Attributes:
        name: Name of the task.
        rows: Rows for the harness, with ``prompt``, ``gold`` and, for multiple choice, ``choices`` and the index ``label``.
        config: Keys of the harness' YAML besides those of all tasks.
        metrics: Metrics of the harness.
        ours: Our task without few-shot rows.
        shots: Number of rows at the beginning that are few-shot rows and not scored.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    metrics: Sequence[str]
    ours: Task
    shots: int = 0


def make_tasks(context_length: int) -> list[Compared]:
    """Return the tasks; texts are chosen for a context length."""
    names = list(CAPITALS.values())
    capitals = []
    for number, (country, capital) in enumerate(CAPITALS.items()):
        choices = [names[(number + step) % len(names)] for step in (5, 11, 17)]
        choices.insert(number % 4, capital)
        capitals.append({"prompt": f"The capital of {country} is", "choices": choices, "label": number % 4, "gold": capital})
    endings = []
    for number, (prompt, *choices) in enumerate(ENDINGS):
        shift = number % 3
        rotated = [*choices[-shift:], *choices[:-shift]] if shift else choices
        endings.append({"prompt": prompt, "choices": rotated, "label": rotated.index(choices[0]), "gold": choices[0]})
    answers = [
        {"prompt": f"Question: What is the capital of {country}?\nAnswer:", "gold": capital} for country, capital in CAPITALS.items()
    ]
    answers += [{"prompt": f"Question: What is {a} + {b}?\nAnswer:", "gold": str(a + b)} for a in range(1, 6) for b in range(2, 6)]
    texts = [{"text": text} for text in TEXTS]
    if context_length <= LONGEST_CONTEXT:
        texts.append({"text": " ".join(TEXTS * (1 + context_length // 40))})
    choice = {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "label"}
    generation = {
        "output_type": "generate_until", "doc_to_target": "gold",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
        "filter_list": [{"name": "stripped", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
    }  # fmt: skip
    greedy = SamplingParams(max_new_tokens=8, stop=("\n",))
    exactly = exact(ignore_case=False, ignore_punctuation=False)
    return [
        Compared("capitals", capitals, choice, ("acc", "acc_norm", "acc_bytes"), make_task("capitals", multiple_choice(raw=True)), 2),
        Compared("endings", endings, choice, ("acc", "acc_norm", "acc_bytes"), make_task("endings", multiple_choice(raw=True))),
        Compared("answers", answers, generation, ("exact_match",), make_task("answers", exactly, raw_prompt=True, sampling=greedy), 2),
        Compared("texts", texts, {"output_type": "loglikelihood_rolling", "doc_to_target": "{{text}}"}, PERPLEXITIES, make_task("texts", perplexity(raw=True))),
    ]  # fmt: skip


def write_task(folder: Path, task: Compared) -> None:
    """Write a task in the harness' format: a YAML file, which JSON is a part of, and its rows."""
    files = {"test": task.rows[task.shots :]} | ({"shots": task.rows[: task.shots]} if task.shots else {})
    for split, rows in files.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{task.name}-{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    config = {
        "task": f"sftchat_{task.name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(folder / f"{task.name}-{split}.jsonl") for split in files}},
        "test_split": "test",
        "doc_to_text": "" if task.config["output_type"] == "loglikelihood_rolling" else "{{prompt}}",
        "metric_list": [{"metric": name} for name in task.metrics],
        "num_fewshot": task.shots,
        **({"fewshot_split": "shots", "fewshot_config": {"sampler": "first_n"}} if task.shots else {}),
        **task.config,
    }
    (folder / f"{task.name}.yaml").write_text(json.dumps(config), encoding="utf-8")


@dataclass(frozen=True)
class Results:
    """Results of one program for one task.

    Attributes:
        metrics: Metrics by the harness' names.
        items: For each row the log-likelihoods, or the reply.
    """

    metrics: Mapping[str, float]
    items: Sequence[Sequence[float] | str]


def run_harness(python: Path, folder: Path, model: Path, tasks: Sequence[Compared]) -> dict[str, Results]:
    """Run lm-evaluation-harness in its own environment.

    Raises:
        SystemExit: When it fails, with the end of its output.
    """
    for task in tasks:
        write_task(folder, task)
    command = [
        str(python), "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--device", "cpu", "--batch_size", "8",
        "--tasks", ",".join(f"sftchat_{task.name}" for task in tasks), "--include_path", str(folder), "--log_samples", "--output_path", str(folder / "out"),
    ]  # fmt: skip
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | offline
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    found = sorted((folder / "out").rglob("results_*.json"))
    if done.returncode or not found:
        raise SystemExit(f"lm-evaluation-harness failed:\n{(done.stdout + done.stderr)[-3000:]}")
    values = json.loads(found[-1].read_text(encoding="utf-8"))["results"]
    results = {}
    for task in tasks:
        (samples,) = (folder / "out").rglob(f"samples_sftchat_{task.name}_*.jsonl")
        rows = sorted((json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()), key=lambda row: int(row["doc_id"]))
        metrics = {
            key.partition(",")[0]: value for key, value in values[f"sftchat_{task.name}"].items() if key.partition(",")[0] in task.metrics
        }
        results[task.name] = Results(metrics, [_harness_item(task, row) for row in rows])
    return results


def _harness_item(task: Compared, row: Mapping[str, Any]) -> Sequence[float] | str:
    if task.config["output_type"] == "generate_until":
        return str(row["filtered_resps"][0])
    if task.config["output_type"] == "loglikelihood_rolling":
        return [float(row["filtered_resps"][0])]
    return [float(logprob) for logprob, _ in row["filtered_resps"]]


def run_ours(model: Path, tasks: Sequence[Compared]) -> dict[str, Results]:
    """Run this program's engine and scorers."""
    engine = load_engine(str(model), {}, dtype="float32", device="cpu")
    results = {}
    for task in tasks:
        rows = [_example(row) for row in task.rows]
        ours = task.ours if not task.shots else replace_few_shot(task.ours, rows[: task.shots])
        result = evaluate(engine, ours, rows[task.shots :])
        values = {metric.name: metric.value for metric in result.metrics}
        likelihoods = [parse_likelihoods(item.reply.text) for item in result.items]
        results[task.name] = Results(
            {name: values[RENAMED.get(name, name)] for name in task.metrics},
            [
                item.reply.text.strip() if parsed is None else [likelihood.logprob for likelihood in parsed]
                for item, parsed in zip(result.items, likelihoods, strict=True)
            ],
        )
    engine.close()
    return results


def replace_few_shot(task: Task, shots: Sequence[Example]) -> Task:
    """Return the task with few-shot rows before every item."""
    from dataclasses import replace

    return replace(task, few_shot=FewShot(len(shots), "first").with_pool(tuple(shots)))


def _example(row: Mapping[str, Any]) -> Example:
    if "text" in row:
        return Example((), row["text"])
    return Example(
        (Message(role="user", content=row["prompt"]),), row["gold"], metadata={"choices": row["choices"]} if "choices" in row else {}
    )


def differences(theirs: Results, ours: Results) -> tuple[float, bool]:
    """Return the largest difference of two log-likelihoods of one text, and whether replies are equal and all differences within rounding."""
    pairs: list[tuple[float, float]] = []
    for first, second in zip(theirs.items, ours.items, strict=True):
        if isinstance(first, str) or isinstance(second, str):
            pairs.append((0.0, 0.0 if first == second else float("inf")))
        else:
            pairs += zip(first, second, strict=True)
    close = all(abs(one - two) <= max(LIKELIHOOD_TOLERANCE, RELATIVE_TOLERANCE * abs(one)) for one, two in pairs)
    return max(abs(one - two) for one, two in pairs), close


def report(tasks: Sequence[Compared], theirs: Mapping[str, Results], ours: Mapping[str, Results]) -> bool:
    """Print the numbers side by side; returns whether they agree."""
    agrees = True
    print(f"{'task':10} {'metric':16} {'lm_eval':>24} {'sftchat':>24}")
    for task in tasks:
        for name in task.metrics:
            first, second = theirs[task.name].metrics[name], ours[task.name].metrics[name]
            equal = abs(first - second) <= PERPLEXITY_TOLERANCE * abs(first) if name in PERPLEXITIES else first == second
            agrees &= equal
            print(f"{task.name:10} {name:16} {first!r:>24} {second!r:>24}  {'equal' if equal else 'DIFFERS'}")
        difference, close = differences(theirs[task.name], ours[task.name])
        agrees &= close
        what = "replies" if isinstance(ours[task.name].items[0], str) else f"log-likelihoods, largest difference {difference:.1e}"
        print(f"{task.name:10} {len(ours[task.name].items)} items: {what}  {'equal' if close else 'DIFFER'}")
    return agrees


def main() -> None:
    """Run both programs and compare; exits with 1 when they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="sftchat:nano", help="checkpoint folder or sftchat:NAME  [default: sftchat:nano]")
    parser.add_argument(
        "--harness", type=Path, help="environment of lm-evaluation-harness; made if missing  [default: in the cache folder]"
    )
    options = parser.parse_args()
    try:
        reference = fetched(resolve(options.model))
    except SftchatError as error:
        raise SystemExit(str(error)) from None
    if reference.folder is None:
        raise SystemExit(f"{options.model} has no folder on this machine; fetch it first")
    python, reason = environment_python(options.harness or cache_folder() / "lm-evaluation-harness", HARNESS, ("torch", "transformers"))
    if reason:
        raise SystemExit(reason)
    config = json.loads((reference.folder / "config.json").read_text(encoding="utf-8"))
    tasks = make_tasks(int(config.get("max_position_embeddings", LONGEST_CONTEXT)))
    ours = run_ours(reference.folder, tasks)
    with tempfile.TemporaryDirectory() as folder:
        theirs = run_harness(python, Path(folder), reference.folder, tasks)
    sys.exit(0 if report(tasks, theirs, ours) else 1)


if __name__ == "__main__":
    main()
