"""The demo with a model that can converse: it learns a task and forgets another, the gate fails, and replayed rows prevent it."""

from __future__ import annotations

import shlex
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from sftchat.cli.demo.story import Story, on_one_line
from sftchat.cli.session import Session
from sftchat.errors import SftchatError, UsageError, unknown_name_message
from sftchat.evaluation.gate import COLOURS
from sftchat.types import Reply

if TYPE_CHECKING:
    from rich.console import Console

    from sftchat.evaluation.gate import Verdict
    from sftchat.evaluation.plan import Plan
    from sftchat.evaluation.report.view import Report
    from sftchat.task import ForgettingConfig, Task

ANSWER_TOKENS = 64
"""Maximum length of the replies to the questions, in tokens."""
PROMPTS_PER_ROW = 1.5
"""Number of prompts per replayed row; replies that do not end within the maximum length are not kept."""
NOT_SHOWN = 3
"""Exit code when the gates did not come out as the demo says (1 is the exit code of gates)."""


class ForgettingDemo:
    """One run of the demo.

    Args:
        session: Opens the models.
        task: The task to train.
        config: Its configuration.
        model: The base model as MODEL.
        folder: Folder for models and reports.
        console: Console for the output.

    Raises:
        UsageError: When the other task or an evalset is not installed, or the model cannot be trained.
    """

    def __init__(self, session: Session, task: Task, config: ForgettingConfig, model: str, folder: Path, console: Console) -> None:
        self.session = session
        self.task = task
        self.config = config
        self.model = model
        self.folder = folder
        self.console = console
        self.story = Story(session, console)
        self.other = session.registry.task(config.other_task)
        for owner, evalset in ((task, config.evalset), (self.other, config.other_evalset)):
            if evalset not in owner.evalsets:
                raise UsageError(unknown_name_message(f"evalset of task {owner.name}", evalset, owner.evalsets))
        from sftchat.training.config import check_options

        check_options(task, model, config.settings, None, engine_types=session.engine_types)

    def run(self) -> int:
        """Run all sections; return 0 when the model learned the task, forgot the other one, and did not forget it with replayed rows."""
        alone, replayed = self.folder / "alone", self.folder / "replayed"
        share = f"{self.config.replay:.0%}"
        self.story.title(f"{self.model} before training")
        self.story.command_line(self._eval_command(self.model))
        before = self._evaluate(self.model, baseline=None)
        self._print_scores(before)
        self.story.title(f"training on {self.task.name} alone")
        self._train(alone, replay=False)
        self.story.title("the gate over both tasks: did it learn, and did it break anything?")
        after_alone = self._judge(alone)
        self.story.title(f"the model's own replies to prompts of {self.other.name}, to be replayed")
        self._write_own_replies()
        self.story.title(f"the same training with {share} of such rows")
        self._train(replayed, replay=True)
        self.story.title("the gate again")
        after_replayed = self._judge(replayed)
        self.story.title("the same questions to all three")
        models = {"base": self.model, "alone": str(alone), "replayed": str(replayed)}
        self._print_answers(models)
        self.story.title("summary")
        self._print_summary({"base": before, "alone": after_alone, "replayed": after_replayed})
        self.story.next_commands(
            self.folder,
            (
                f"sftchat chat {self.model} {alone} {replayed}",
                self._eval_command(str(replayed), baseline=self.model) + f" -o {self.folder / 'report'}",
                f"sftchat inspect {replayed}",
                f"sftchat merge {replayed} -o {self.folder / 'merged'}",
            ),
        )
        if (self._has_learned(after_alone), _verdict_of(after_alone).exit_code, _verdict_of(after_replayed).exit_code) == (True, 1, 0):
            return 0
        self.console.print(
            "\n  This run did not show what the demo is about; scores of so few items and steps vary with machine and model."
        )
        return NOT_SHOWN

    def _eval_command(self, model: str, baseline: str | None = None) -> str:
        words = ["sftchat", "eval", model]
        for task, evalset in ((self.task, self.config.evalset), (self.other, self.config.other_evalset)):
            words += ["--task", task.name, "--evalset", f"{task.name}={evalset}"]
        words += ["--limit", str(self.config.items), *(["--baseline", baseline] if baseline is not None else [])]
        return shlex.join(words)

    def _plan(self, task: Task, evalset: str, model: str, baseline: str | None) -> Plan:
        from sftchat.evaluation.plan import make_plan

        return make_plan(
            task,
            [model],
            evalset_sources=[task.evalsets[evalset]],
            baseline=baseline,
            limit=self.config.items,
            label=f".{task.name}",
            tasks=self.session.registry.tasks,
        )

    def _evaluate(self, model: str, baseline: str | None) -> Report:
        """Evaluate a model on both tasks as ``sftchat eval`` does."""
        from functools import partial

        from sftchat.cli.session import stderr
        from sftchat.evaluation.pipeline import Evaluation
        from sftchat.evaluation.progress import show_progress

        plans = [
            self._plan(self.task, self.config.evalset, model, baseline),
            self._plan(self.other, self.config.other_evalset, model, baseline),
        ]
        engines = self.session.engine_pool()
        with closing(engines):
            report = Evaluation(plans, engines, self.session.identify, {}, watch=partial(show_progress, stderr())).run()
        if report is None:
            raise UsageError("the demo runs in one process")
        return report

    def _judge(self, run: Path) -> Report:
        """Evaluate a trained model, compare it with the base model, and print scores and verdict."""
        report = self._evaluate(str(run), baseline=self.model)
        self._print_scores(report)
        self.story.verdict(self._eval_command(str(run), baseline=self.model), _verdict_of(report))
        return report

    def _write_own_replies(self) -> None:
        """Write prompts of the other task's generator, and the base model's own replies to them as rows."""
        rows = round(self.config.rows * self.config.replay / (1 - self.config.replay) * PROMPTS_PER_ROW)
        prompts = str(self.folder / "prompts.jsonl")
        options = [word for name, value in self.config.other_options.items() for word in ("--option", f"{name}={value}")]
        self.story.run(["data", "generate", self.other.name, "-n", str(rows), *options, "-o", prompts, "--quiet"])
        kept_whatever_they_score = ["-k", "1", "--temperature", "0", "--min-score", "0"]
        words = [
            "data",
            "best-of",
            self.other.name,
            self.model,
            "--prompts",
            prompts,
            *kept_whatever_they_score,
            "-o",
            str(self._own_replies),
        ]
        self.story.run([*words, "--quiet"])

    @property
    def _own_replies(self) -> Path:
        return self.folder / "own-replies.jsonl"

    def _train(self, run: Path, *, replay: bool) -> None:
        """Train as ``sftchat train`` does; with ``replay``, add rows of the other task."""
        from sftchat.training.prepare import TrainingJob
        from sftchat.training.replay import collect_replay_rows, parse_replays
        from sftchat.training.rows import collect_rows

        options = [f"{name}={value}" for name, value in self.config.options.items()]
        replay_words = [f"{self._own_replies}={self.config.replay:g}"] if replay else []
        examples, sources = collect_rows(self.task, (), rows=self.config.rows, options=options)
        replays = parse_replays(replay_words, self.session.registry.tasks, self.task.name)
        replay_rows, replay_sources = collect_replay_rows(replays, len(examples), seed=0)
        words = ["sftchat", "train", self.task.name, "--model", self.model, "--rows", str(self.config.rows)]
        for flag, values in (("--option", options), ("--replay", replay_words)):
            words += [word for value in values for word in (flag, value)]
        words += [
            word
            for name, value in self.config.settings.items()
            for word in (f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value))
        ]
        self.story.train(
            TrainingJob(
                self.task,
                self.model,
                run,
                examples,
                (*sources, *replay_sources),
                dict(self.config.settings),
                replay=replay_rows,
                command=shlex.join([*words, "-o", str(run)]),
            )
        )

    def _print_scores(self, report: Report) -> None:
        """Print the primary metric of each task with its interval."""
        for task, result in zip((self.task, self.other), report.results, strict=True):
            value = result.metric(task.metric.name)
            interval = "" if value.low is None else f"  95 % interval {value.low:.3f} – {value.high:.3f}"
            remark = f"{len(result.items)} items of {result.evalset.name}, {result.seconds or 0:.0f} s"
            self.story.fact(f"{task.name:<10}{task.metric.name} {value.value:.3f}{interval}", remark)

    def _print_answers(self, models: dict[str, str]) -> None:
        """Print the greedy replies of all models to the questions."""
        from dataclasses import replace

        from sftchat.inference.ask import ask_models, make_question
        from sftchat.models.reference import resolve

        examples = [make_question(text, "", str(number)) for number, text in enumerate(self.config.questions, 1)]
        questions = " ".join(f"-q {shlex.quote(text)}" for text in self.config.questions)
        self.story.command_line(f"sftchat compare {shlex.join(models.values())} {questions}")
        references = [resolve(model, schemes=self.session.engine_types) for model in models.values()]
        answers: dict[tuple[int, int], str] = {}
        sampling = replace(self.task.sampling, max_new_tokens=ANSWER_TOKENS)
        for model, number, reply in ask_models(self.session.load_engine, references, examples, sampling, {}):
            answers[number, model] = reply.text if isinstance(reply, Reply) else str(reply)
        for number, text in enumerate(self.config.questions):
            self.console.print("\n ", Text(on_one_line(text, 400), "bold"), soft_wrap=True)
            for model, name in enumerate(models):
                self.console.print(f"    {name:<10}{on_one_line(answers[number, model], 200)}", soft_wrap=True)

    def _print_summary(self, reports: dict[str, Report]) -> None:
        """Print one line per model: both scores and the verdict."""
        tasks = (self.task, self.other)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("model")
        for task in tasks:
            table.add_column(f"{task.name} {task.metric.name}", justify="right")
        table.add_column("gate")
        for name, report in reports.items():
            scores = [f"{result.metric(task.metric.name).value:.3f}" for task, result in zip(tasks, report.results, strict=True)]
            verdict = _verdict_of(report)
            gate = Text(f"exit {verdict.exit_code}, {verdict.outcome}", COLOURS[verdict.tone]) if report.comparisons else Text("")
            table.add_row(name, *scores, gate)
        self.console.print(table)

    def _has_learned(self, report: Report) -> bool:
        """Return whether the primary metric of the task is significantly better than the base model's."""
        return bool(report.comparisons[0].metrics) and report.comparisons[0].metrics[0].judgement == "better"


def _verdict_of(report: Report) -> Verdict:
    if report.verdict is None:
        raise SftchatError("the evaluation ended without a verdict")
    return report.verdict
