"""Runs the phase of an evaluation in which a judge is asked, after the models are closed: opens the judge, keeps its answers, writes its verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from sftchat._util.files import write_atomically
from sftchat.engine import Request, collect
from sftchat.errors import EngineError
from sftchat.evaluation.cached_engine import CachedEngine
from sftchat.evaluation.evaluate import OnOutcome
from sftchat.evaluation.judge import Judge, JudgeSummary
from sftchat.evaluation.judging import Outcomes, judge_replies
from sftchat.evaluation.pairwise import judge_pairs
from sftchat.evaluation.partial_replies import PartialReplies, partial_path
from sftchat.evaluation.scored import Failure, Item, Outcome
from sftchat.task import Task
from sftchat.types import Example, Reply, Score

ANSWERS = "replies.judge.jsonl"
"""File whose partial file keeps the answers of a judge that cannot be cached."""


@dataclass
class JudgePhase:
    """The judge of one task.

    Attributes:
        judge: The judge.
        task: The judged task.
        open_judge: Opens the judge by its name, with the cache.
        watch: Shows progress, see ``sftchat.evaluation.pipeline.Watch``.
        stack: Its contexts stay open until the report is written.
        output: Folder for the results; None for none.
        say: Called with a line for the user.
        judges_itself: Names of the judged models that are the judge itself.
    """

    judge: Judge
    task: Task
    open_judge: Callable[[str], CachedEngine]
    watch: Callable[[str, int, Callable[[], int]], AbstractContextManager[OnOutcome]]
    stack: ExitStack
    output: Path | None
    say: Callable[[str], None]
    judges_itself: list[str] = field(default_factory=list)

    def check_model(self, name: str, identity: str) -> None:
        """Warn when a model is the judge itself.

        Args:
            name: Name of the model as typed.
            identity: Hash of everything that affects its replies; empty when unknown.
        """
        if name == self.judge.model or (identity and identity == self.judge.identity):
            self.judges_itself.append(name)
            self.say(f"warning: the judge is the judged model '{name}' itself, and models prefer their own replies; give another --judge")

    def run(self, generated: Mapping[str, Sequence[Outcomes]]) -> tuple[dict[str, Sequence[Sequence[Outcome]]], JudgeSummary]:
        """Ask the judge about all replies; write the verdicts when there is a folder.

        Args:
            generated: Generated outcomes of each source on each evalset, by name of its file of replies; that of the baseline first, for pairs.

        Returns:
            The judged outcomes in the same form, and what the report says of the judge.

        Raises:
            EngineError: When the judge cannot answer any more.
            ModelError: When it cannot be opened.
        """
        if self.judge.pairwise:
            baseline, candidate = generated.values()
            judged = judge_pairs(self.judge, self.task, baseline, candidate, self._ask, self.judges_itself)
        else:
            groups = [group for of_source in generated.values() for group in of_source]
            judged = judge_replies(self.judge, self.task, groups, self._ask, self.judges_itself)
        outcomes, rows = iter(judged.outcomes), iter(judged.rows)
        result: dict[str, Sequence[Sequence[Outcome]]] = {}
        for file, of_source in generated.items():
            result[file] = [next(outcomes) for _ in of_source]
            of_file = {item_id: row for _ in of_source for item_id, row in next(rows).items()}
            if self.output is not None and of_file:
                lines = (json.dumps({"id": item_id, **row}, ensure_ascii=False) + "\n" for item_id, row in of_file.items())
                write_atomically(self.output / verdicts_name(file), lines)
        return result, judged.summary

    def _ask(self, requests: Sequence[Request]) -> Iterator[tuple[str, Reply | EngineError]]:
        """Yield the id of each request with the judge's answer, and keep the answers that cannot be cached until the report is written."""
        path = None if self.output is None else partial_path(self.output / ANSWERS)
        with closing(self.open_judge(self.judge.model)) as engine:
            partial = self.stack.enter_context(PartialReplies(engine, path, requests))
            with (
                self.watch(f"judge {self.judge.model}", len(requests), lambda: engine.hits + partial.hits) as advance,
                closing(collect(partial, requests)) as answers,
            ):
                for id, answer in answers:
                    example = Example((), id=id.partition("#")[2])
                    failed = isinstance(answer, EngineError)
                    advance(Failure(example, f"by the judge: {answer}") if failed else Item(example, Reply(""), Score({"n": 1})))
                    yield id, answer


def verdicts_name(replies: str) -> str:
    """Return the name of the file of verdicts on a file of replies."""
    return f"verdicts{replies.removeprefix('replies')}"
