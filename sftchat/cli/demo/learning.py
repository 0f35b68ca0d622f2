"""The demo with the embedded model: it learns a task in minutes, and a damaged copy fails the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from sftchat.cli.demo import BASE
from sftchat.cli.demo.story import Story, on_one_line
from sftchat.cli.session import Session
from sftchat.errors import SftchatError

if TYPE_CHECKING:
    from rich.console import Console

    from sftchat.engine import Engine
    from sftchat.evaluation.results import Comparison, ModelResult
    from sftchat.task import DemoConfig, Task
    from sftchat.training.prepare import TrainingJob
    from sftchat.types import Example

TRAINING_SEED, TEST_SEED = 1, 2
SPEED_SAMPLE_ROWS = 400
"""Number of rows on which the speed of training is measured."""
MAX_REPLY_CHARACTERS = 120
"""Maximum number of characters shown of a reply."""
MAX_BROKEN_SHOWN = 3
"""Maximum number of newly broken items shown; ``report.html`` has all."""


class LearningDemo:
    """One run of the demo.

    Args:
        session: Opens the models.
        task: The task to train.
        config: The task's demo configuration.
        folder: Folder for data and model.
        console: Console for the output.
    """

    def __init__(self, session: Session, task: Task, config: DemoConfig, folder: Path, console: Console) -> None:
        self.session = session
        self.task = task
        self.config = config
        self.folder = folder
        self.console = console
        self.story = Story(session, console)

    def run(self) -> int:
        """Run all sections; return 0 when the model is better on every held-out set, else 3 (1 is the exit code of gates)."""
        self.story.title("data")
        sets = self._write_data()
        run_folder = self.folder / "run"
        self.story.title(f"the base model, {BASE}, before training")
        before = self._score_sets(self.session.load_engine(BASE, preferred=self.task.template), sets)
        self.story.title("training")
        self._train(run_folder)
        self.story.title("the tuned model")
        engine = self.session.load_engine(str(run_folder))
        after = self._score_sets(engine, sets)
        self.story.title("paired comparison, the same items under both models")
        comparisons = self._compare_sets(before, after, sets)
        self.story.title("before and after")
        self._print_replies(comparisons)
        self.story.title("the gate: what a CI job would see")
        self._run_gates(run_folder, before, after, sets)
        self._print_next_commands(run_folder)
        return 0 if all(self._has_improved(comparison) for comparison in comparisons.values()) else 3

    def _write_data(self) -> dict[str, list[Example]]:
        """Write the training rows and the held-out sets; return the held-out sets and the task's first evalset by title."""
        from sftchat.data.generate import generate_examples
        from sftchat.data.serialize import serialize
        from sftchat.data.write import write_rows
        from sftchat.evaluation.evalset import read_evalset

        training_file = self.folder / "train.jsonl"
        examples = list(generate_examples(self.task, self.config.rows, TRAINING_SEED, {}))
        write_rows(training_file, (serialize(example, "messages") for example in examples))
        self.story.fact(f"{len(examples):,} training rows from the generator", training_file.name)
        sets: dict[str, list[Example]] = {}
        for title, options in self.config.held_out.items():
            sets[title] = list(generate_examples(self.task, self.config.items, TEST_SEED, options))
            path = self._path_of_set(title)
            write_rows(path, (serialize(example, "evalset") for example in sets[title]))
            self.story.fact(f"{len(sets[title]):,} items with {title}, none of them trained on", path.name)
        for name, path in list(self.task.evalsets.items())[:1]:  # others may need another model
            sets[f"evalset '{name}'"] = list(read_evalset(path).examples)
            self.story.fact(f"{len(sets[f'evalset {name!r}']):,} items of the evalset '{name}', written by hand", path.name)
        example = examples[0]
        self.console.print(
            f"\n  a row:  {on_one_line(example.messages[-1]['content'])}\n      →   {on_one_line(example.gold or '')}", soft_wrap=True
        )
        return sets

    def _score_sets(self, engine: Engine, sets: Mapping[str, list[Example]]) -> dict[str, ModelResult]:
        """Score a model on every set and print the primary metric with its interval."""
        from sftchat.evaluation.evalset import EvalsetIdentity
        from sftchat.evaluation.evaluate import evaluate

        results = {}
        for title, examples in sets.items():
            result = evaluate(engine, self.task, examples, evalset=EvalsetIdentity(title, size=len(examples)))
            value = result.metric(self.task.metric.name)
            interval = "" if value.low is None else f"  95 % interval {value.low:.3f} – {value.high:.3f}"
            self.story.fact(f"{self.task.metric.name} {value.value:.3f}{interval}", f"{title}, {result.seconds or 0:.0f} s")
            results[title] = result
        return results

    def _train(self, run: Path) -> None:
        """Train as ``sftchat train`` does."""
        from sftchat.training.prepare import TrainingJob
        from sftchat.training.rows import collect_rows

        training_file = self.folder / "train.jsonl"
        examples, sources = collect_rows(self.task, (str(training_file),))
        epochs = self._reduce_epochs(
            TrainingJob(self.task, BASE, run, examples[:SPEED_SAMPLE_ROWS], sources, {"epochs": self.config.epochs}), len(examples)
        )
        command_line = f"sftchat train {self.task.name} --model {BASE} --data {training_file} --epochs {epochs:g} -o {run}"
        job = TrainingJob(self.task, BASE, run, examples, sources, {"epochs": epochs}, command=command_line)
        self.story.train(job)

    def _reduce_epochs(self, sample: TrainingJob, rows: int) -> float:
        """Return the number of epochs that fit into the time limit, from the speed of a few steps on the sample."""
        from sftchat.training.dry_run import perform_dry_run
        from sftchat.training.prepare import prepare

        setup = prepare(sample)
        seconds = self.config.epochs * rows * setup.rows.tokens / len(setup.rows.ids) / perform_dry_run(setup).tokens_per_second
        if seconds <= self.config.seconds:
            return self.config.epochs
        epochs = max(round(self.config.epochs * self.config.seconds / seconds, 2), 0.01)
        self.story.fact(
            f"this machine would take {seconds / 60:.0f} minutes for all rows; it sees {epochs / self.config.epochs:.0%} of them",
            "scores rise with the rest",
        )
        return epochs

    def _compare_sets(
        self, before: Mapping[str, ModelResult], after: Mapping[str, ModelResult], sets: Mapping[str, object]
    ) -> dict[str, Comparison]:
        """Compare both models on each set and print the difference."""
        from sftchat.evaluation.evaluate import compare

        comparisons = {title: compare(before[title], after[title], self.task) for title in sets}
        for title, comparison in comparisons.items():
            if not comparison.metrics:
                raise SftchatError(f"no item of '{title}' was answered by both models")
            first = comparison.metrics[0]
            interval = "" if first.low is None else f"  [{first.low:+.3f}, {first.high:+.3f}]"
            p = "p < 0.001" if first.p < 0.001 else f"p = {first.p:.3f}"
            self.story.fact(
                f"{first.baseline:.3f} → {first.candidate:.3f}  {first.difference:+.3f}{interval}  {p}", f"{title}: {first.judgement}"
            )
        return comparisons

    def _print_replies(self, comparisons: Mapping[str, Comparison]) -> None:
        """Print one reply per set before and after training, of a fixed item if there is one, else of a broken one."""
        for title, comparison in comparisons.items():
            pairs = comparison.fixed or comparison.broken
            if not pairs:
                continue
            # the item with the shortest prompt
            old, new = min(pairs, key=lambda pair: len(pair[1].example.messages[-1]["content"]))
            self.console.print("\n ", Text(title, "bold"), "", on_one_line(new.example.messages[-1]["content"], 400), soft_wrap=True)
            for name, text in (("gold", new.example.gold or ""), ("base", old.reply.text), ("tuned", new.reply.text)):
                self.console.print(f"    {name:<6}{on_one_line(text, 60)}", soft_wrap=True)

    def _run_gates(
        self, run: Path, before: Mapping[str, ModelResult], after: Mapping[str, ModelResult], sets: Mapping[str, list[Example]]
    ) -> None:
        """Run two gates: the tuned model against its base, and a damaged copy against the tuned model."""
        from sftchat.evaluation.evaluate import evaluate
        from sftchat.testing.degrade import LEVELS, write_damaged

        title = next(iter(self.config.held_out))
        damaged, path = self.folder / "damaged", self._path_of_set(title)
        base, tuned = (replace(results[title], model=model) for results, model in ((before, BASE), (after, str(run))))
        show_gate(self.story, self.task, base, tuned, f"sftchat eval {run} --baseline {BASE} --evalset {path}")
        self.console.print(
            f"\n  the same weights, rounded to {LEVELS} values a matrix, as a careless quantisation would:\n", soft_wrap=True
        )
        write_damaged(run, damaged)
        engine = self.session.load_engine(str(damaged))
        damaged_result = evaluate(engine, self.task, sets[title], evalset=tuned.evalset)
        show_gate(self.story, self.task, tuned, damaged_result, f"sftchat eval {damaged} --baseline {run} --evalset {path}")

    def _print_next_commands(self, run: Path) -> None:
        """Print the next commands to try."""
        first = self._path_of_set(next(iter(self.config.held_out)))
        self.story.next_commands(
            self.folder,
            (
                f"sftchat chat {run}",
                f"sftchat eval {run} --baseline {BASE} --evalset {first} -o {self.folder / 'report'}",
                f"sftchat inspect {run}",
                f"sftchat train {self.task.name} --method lora -o {self.folder / 'lora'}",
            ),
        )

    def _has_improved(self, comparison: Comparison) -> bool:
        """Return whether the primary metric is significantly better; always True for a set that is not held out by the configuration."""
        return comparison.candidate.evalset.name not in self.config.held_out or comparison.metrics[0].judgement == "better"

    def _path_of_set(self, title: str) -> Path:
        return self.folder / f"{'-'.join(title.split())}.jsonl"


def show_gate(story: Story, task: Task, baseline: ModelResult, candidate: ModelResult, command_line: str) -> int:
    """Print a command, its verdict and exit code, and a few newly broken items with both replies; return the exit code."""
    from sftchat.evaluation.evaluate import compare
    from sftchat.evaluation.gate import decide_verdict, gate_comparisons
    from sftchat.evaluation.gate_options import GateConfig, GatedMetric
    from sftchat.evaluation.report.view import Report, error_classes

    config = GateConfig(gated=(GatedMetric(task.metric.name),))
    (comparison,), gates = gate_comparisons((compare(baseline, candidate, task),), lambda _: config.gated)
    report = Report(task.name, (candidate,), (baseline,), (comparison,), gates=gates)
    verdict = decide_verdict(report, config)
    story.verdict(command_line, verdict)
    if comparison.broken:
        story.console.print()
    for old, new in comparison.broken[:MAX_BROKEN_SHOWN]:
        story.console.print(f"    broken: {new.example.id}  ({', '.join(error_classes(new))})", soft_wrap=True)
        for name, text in (("gold", new.example.gold or ""), ("before", old.reply.text), ("now", new.reply.text)):
            story.console.print(f"      {name:<7}{' / '.join(text.splitlines())[:MAX_REPLY_CHARACTERS]}", soft_wrap=True)
    if len(comparison.broken) > MAX_BROKEN_SHOWN:
        story.console.print(f"    and {len(comparison.broken) - MAX_BROKEN_SHOWN} more")
    return verdict.exit_code
