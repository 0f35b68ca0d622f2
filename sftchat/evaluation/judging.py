"""The phase of an evaluation in which a judge is asked about the generated replies: their requests, and the outcomes from its verdicts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sftchat.engine import Request
from sftchat.errors import EngineError
from sftchat.evaluation.evaluate import Scorer
from sftchat.evaluation.judge import UNPARSABLE, Judge, JudgeSummary
from sftchat.evaluation.judge_prompt import parse_verdict, rating_messages
from sftchat.evaluation.scored import Failure, Item, Outcome
from sftchat.task import Task, answer_of
from sftchat.types import Example, Message, Reply, Score

Ask = Callable[[Sequence[Request]], Iterable[tuple[str, Reply | EngineError]]]
"""Asks the judge; yields the id of each request with its answer."""
Outcomes = Mapping[str, Outcome]
"""Outcomes of one model on one evalset, by item id, in the evalset's order."""


@dataclass(frozen=True)
class Judged:
    """Result of the phase.

    Attributes:
        outcomes: Judged outcomes, in the order of the generated ones.
        rows: For each of them, rows of the file of verdicts, by item id.
        summary: What the report says of the judge.
    """

    outcomes: tuple[tuple[Outcome, ...], ...]
    rows: tuple[Mapping[str, Mapping[str, Any]], ...]
    summary: JudgeSummary


@dataclass
class CountingJudge:
    """Asks the judge and counts its answers, which ``parse`` reads; None is an answer that cannot be read."""

    ask: Ask
    counts: dict[str, int] = field(default_factory=lambda: {"verdicts": 0, "unparsable": 0, "unanswered": 0})

    def answers(self, requests: Sequence[Request], parse: Callable[[str, Reply], Any]) -> Iterable[tuple[str, Any]]:
        """Yield the id of each request with the verdict, or with the reason why there is none."""
        for id, answer in self.ask(requests) if requests else ():
            self.counts["verdicts"] += 1
            if isinstance(answer, EngineError):
                self.counts["unanswered"] += 1
                yield id, str(answer)
                continue
            verdict = parse(id, answer)
            self.counts["unparsable"] += verdict is None
            yield id, UNPARSABLE if verdict is None else verdict


def answering_task(task: Task) -> Task:
    """Return a judged task for the phase in which replies are generated: its score counts the reply and nothing else."""
    return replace(task, score=lambda example, reply: Score({"n": 1}))


def judge_replies(judge: Judge, task: Task, outcomes: Sequence[Outcomes], ask: Ask, judges_itself: Sequence[str] = ()) -> Judged:
    """Ask a judge for the score of every reply, equal replies to one item once; a reply without a verdict makes its item a failure.

    Args:
        judge: The judge; its table gets the verdicts.
        task: The judged task.
        outcomes: Generated replies of every model on every evalset.
        ask: Asks the judge.
        judges_itself: Names of the judged models that are the judge itself.

    Raises:
        EngineError: When the judge cannot answer any more.
        ModelError: When it cannot be opened.
    """
    table, rubric = judge.table, judge.rubric
    texts: dict[str, tuple[str, str]] = {}
    requests: list[Request] = []
    for example, text in _answers(task, outcomes):
        id = f"{_short_hash(text)}#{example.id}"
        if text.strip() and (example.id, text) not in table.scores and id not in texts:
            texts[id] = example.id, text
            messages = rating_messages(rubric, conversation_of(task, example), example.gold, text)
            requests.append(Request(id, messages, sampling=rubric.sampling))
    counter = CountingJudge(ask)
    for id, verdict in counter.answers(requests, lambda id, answer: parse_verdict(rubric, answer, texts[id][1])):
        table.add(texts[id], verdict)
    scorer = Scorer(task, caches=True)

    def judged(outcome: Outcome) -> Outcome:
        if isinstance(outcome, Failure):
            return outcome
        failure = table.failure(task, outcome.example, outcome.reply)
        return Failure(outcome.example, failure, outcome.reply) if failure else scorer(outcome.example, outcome.reply)

    return Judged(
        tuple(tuple(judged(outcome) for outcome in group.values()) for group in outcomes),
        tuple({item_id: row for item_id, outcome in group.items() if (row := _rating_row(judge, task, outcome))} for group in outcomes),
        judge.summary(**counter.counts, judges_itself=tuple(judges_itself)),
    )


def _answers(task: Task, outcomes: Sequence[Outcomes]) -> Iterable[tuple[Example, str]]:
    """Yield every reply, also further samples, as text without thoughts."""
    for group in outcomes:
        for outcome in group.values():
            if isinstance(outcome, Item):
                yield from ((outcome.example, answer_of(task, sample).text) for sample in outcome.reply.samples)


def _rating_row(judge: Judge, task: Task, outcome: Outcome) -> dict[str, Any]:
    """Return the verdict on the first sample of an item as a row of the file of verdicts; empty without one of this evaluation."""
    if isinstance(outcome, Failure):
        return {}
    key = outcome.example.id, answer_of(task, outcome.reply).text
    verdict, score = judge.table.verdicts.get(key), judge.table.scores.get(key)
    if isinstance(score, str):
        return {"error": score}
    if verdict is None or score is None:
        return {}
    ratings = {item.name: item.rating(verdict.shares[item.name]) for item in judge.rubric.criteria}
    return {"score": round(score.stats["score"], 6), "passed": not score.errors, **ratings, "reason": verdict.reason}


def conversation_of(task: Task, example: Example) -> Sequence[Message]:
    """Return the turns that a judge sees: with the task's system prompt, without few-shot turns."""
    return example.with_system(task.system).messages


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
