"""A tiny task of triples, one per line, and results without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from sftchat import Example, Message, Metric, Reply, Score, Task, rate, ratio
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.evaluate import Scorer, compare, score_stored, summarise
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.scored import Failure, Outcome, collect_outcomes


def judge(example: Example, reply: Reply) -> Score:
    gold = set((example.gold or "").split("\n")) - {"无"}
    said = set(reply.text.split("\n")) - {"无", ""}
    errors = ("missing",) * len(gold - said) + ("spurious",) * len(said - gold)
    groups: dict[str, dict[str, float]] = {}
    for line in gold | said:
        slot = groups.setdefault(line.rpartition(":")[2], {"tp": 0, "pred": 0, "gold": 0})
        slot["tp"] += line in gold & said
        slot["pred"] += line in said
        slot["gold"] += line in gold
    stats = {"n": 1, "tp": len(gold & said), "pred": len(said), "gold": len(gold), "exact": int(gold == said)}
    return Score(stats, "\n".join(sorted(said)), errors, groups)


F1 = Metric("f1", lambda sums: ratio(2 * sums["tp"], sums["pred"] + sums["gold"]), stats=("tp", "pred", "gold"))
F1_TASK = Task("triples", "triples", lambda n, seed: (), judge, (F1, rate("exact", "exact")))


@pytest.fixture(scope="session")
def task() -> Task:
    return F1_TASK


@pytest.fixture(scope="session")
def example() -> Callable[..., Example]:
    def make(identity: str, gold: str | None = "甲-乙:夫妻", prompt: str | None = None) -> Example:
        return Example((Message(role="user", content=prompt or identity),), gold, identity, source=f"gold.jsonl:{identity}")

    return make


RIGHT, WRONG = "甲-乙:夫妻", "甲-乙:恋人"


@pytest.fixture(scope="session")
def result(task: Task, example: Callable[..., Example]) -> Callable[..., ModelResult]:
    """Build a result from a word of marks: ``+`` right, ``-`` wrong, ``~`` truncated and wrong, ``!`` not answered."""

    def make(name: str, marks: str, size: int = 8) -> ModelResult:
        def outcomes() -> Iterable[Outcome]:
            for number, mark in enumerate(marks):
                asked = example(f"i{number}")
                if mark == "!":
                    yield Failure(asked, "server gone")
                else:
                    yield Scorer(task)(asked, Reply(RIGHT if mark == "+" else WRONG, "length" if mark == "~" else "stop", 3, 5))

        return summarise(name, task, collect_outcomes(outcomes()), EvalsetIdentity("gold.jsonl", "ab12", size))

    return make


MakeReport = Callable[..., Report]


@pytest.fixture(scope="session")
def make_report(task: Task, example: Callable[..., Example]) -> MakeReport:
    """Build a report from replies by id; an exception instead of a reply is an unanswered item."""

    def summarised(name: str, gold: dict[str, str], replies: dict[str, str | Exception]) -> ModelResult:
        examples = [example(identity, text) for identity, text in gold.items()]
        answers = {identity: str(text) if isinstance(text, Exception) else Reply(text) for identity, text in replies.items()}
        return summarise(name, task, score_stored(task, examples, [answers])[0], EvalsetIdentity("gold.jsonl", "f00d", len(gold)))

    def make(
        gold: dict[str, str], *models: dict[str, str | Exception], baseline: dict[str, str | Exception] | None = None, names: str = "model"
    ) -> Report:
        results = [summarised(name, gold, replies) for name, replies in zip(names.split(), models, strict=True)]
        if baseline is None:
            return Report(task.name, tuple(results))
        old = summarised("old", gold, baseline)
        return Report(task.name, tuple(results), (old,), tuple(compare(old, new, task) for new in results))

    return make
