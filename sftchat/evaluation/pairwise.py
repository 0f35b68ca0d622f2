"""Pairs of replies: a judge decides in both orders which of two models answered better, and wins, losses and ties are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sftchat.engine import Request
from sftchat.evaluation.judge import NOT_JUDGED, Judge
from sftchat.evaluation.judge_prompt import Preference, choice_messages, parse_preference
from sftchat.evaluation.judging import Ask, CountingJudge, Judged, Outcomes, conversation_of
from sftchat.evaluation.scored import Failure, Item, Outcome
from sftchat.task import Task, answer_of
from sftchat.types import Message, Reply, Score

BOTH_ORDERS = ("ab", "ba")
"""Orders in which two replies are shown: the model's first, and the baseline's first."""


def judge_pairs(
    judge: Judge, task: Task, baseline: Sequence[Outcomes], candidate: Sequence[Outcomes], ask: Ask, judges_itself: Sequence[str] = ()
) -> Judged:
    """Ask a judge which of two replies is better, in both orders, for every item that both models answered.

    A reply wins when it wins in both orders. Everything else is a tie: a tie in one order, and another winner in the other order, which is
    position bias. Equal replies are a tie without asking. The outcomes of the two models mirror each other: what one wins, the other loses; so the
    paired comparison of the two tests whether the model wins more often than it loses.

    Args:
        judge: The judge.
        task: The judged task, with the metrics of pairs.
        baseline: Generated replies of the baseline, one entry for each evalset.
        candidate: Those of the model under test.
        ask: Asks the judge.
        judges_itself: Names of the judged models that are the judge itself.

    Returns:
        The outcomes of the baseline, then those of the model; rows of verdicts for the model only.

    Raises:
        EngineError: When the judge cannot answer any more.
        ModelError: When it cannot be opened.
    """
    pairs: dict[str, _Pair] = {}
    for old_group, new_group in zip(baseline, candidate, strict=True):
        for item_id, new in new_group.items():
            old = old_group.get(item_id)
            if isinstance(old, Item) and isinstance(new, Item):
                pairs[item_id] = _Pair(new, old, answer_of(task, new.reply).text, answer_of(task, old.reply).text)
    requests = [
        Request(
            f"{order}#{item_id}", choice_messages(judge.rubric, *pair.material(task), *pair.texts(order)), sampling=judge.rubric.sampling
        )
        for item_id, pair in pairs.items()
        if pair.text.strip() != pair.other_text.strip()
        for order in BOTH_ORDERS
    ]

    def parse(id: str, answer: Reply) -> Preference | None:
        return parse_preference(answer, (pairs[_item_of(id)].text, pairs[_item_of(id)].other_text))

    counter = CountingJudge(ask)
    for id, choice in counter.answers(requests, parse):
        pairs[_item_of(id)].choices[id.partition("#")[0]] = choice
    asked = [pair for pair in pairs.values() if len(pair.choices) == len(BOTH_ORDERS) and not pair.failure]
    biased = [pair for pair in asked if pair.is_biased]
    summary = judge.summary(
        **counter.counts,
        pairs=len(asked),
        position_biased=len(biased),
        first_preferred=sum(pair.winners == ("model", "baseline") for pair in biased),
        judges_itself=tuple(judges_itself),
    )
    old_outcomes, new_outcomes = [], []
    for old_group, new_group in zip(baseline, candidate, strict=True):
        judged = [_pair_outcomes(pairs.get(item_id), old_group.get(item_id), new) for item_id, new in new_group.items()]
        old_outcomes.append(tuple(old for old, _ in judged))
        new_outcomes.append(tuple(new for _, new in judged))
    rows = [{item_id: pairs[item_id].row for item_id in group if item_id in pairs} for group in candidate]
    return Judged((*old_outcomes, *new_outcomes), ({},) * len(baseline) + tuple(rows), summary)


@dataclass
class _Pair:
    """The two replies to one item, and the judge's choice in each order, or the reason why there is none."""

    new: Item
    old: Item
    text: str
    other_text: str
    choices: dict[str, Preference | str] = field(default_factory=dict)

    def texts(self, order: str) -> tuple[str, str]:
        """Return the texts in an order of ``BOTH_ORDERS``."""
        return (self.text, self.other_text) if order == BOTH_ORDERS[0] else (self.other_text, self.text)

    def material(self, task: Task) -> tuple[Sequence[Message], str | None]:
        """Return the conversation and the reference reply."""
        return conversation_of(task, self.new.example), self.new.example.gold

    @property
    def failure(self) -> str:
        """Why there is no choice in one of the orders; empty when there are both."""
        return next((choice for choice in self.choices.values() if isinstance(choice, str)), "")

    @property
    def winners(self) -> tuple[str, ...]:
        """Winner in each order: ``model``, ``baseline`` or ``tie``."""
        places = {"ab": {"first": "model", "second": "baseline"}, "ba": {"first": "baseline", "second": "model"}}
        choices = [(order, self.choices.get(order)) for order in BOTH_ORDERS]
        return tuple(places[order].get(choice.winner, "tie") for order, choice in choices if isinstance(choice, Preference))

    @property
    def is_biased(self) -> bool:
        """Whether another reply wins in the other order."""
        return set(self.winners) == {"model", "baseline"}

    @property
    def winner(self) -> str:
        """Winner in both orders, or ``tie``."""
        return self.winners[0] if len(set(self.winners)) == 1 else "tie"

    @property
    def row(self) -> dict[str, Any]:
        """The pair as a row of the file of verdicts."""
        if self.failure:
            return {"error": f"{NOT_JUDGED}: {self.failure}"}
        reasons = [choice.reason for choice in self.choices.values() if isinstance(choice, Preference)]
        return {"winner": self.winner, "position_biased": self.is_biased, "reasons": reasons}


def _pair_outcomes(pair: _Pair | None, old: Outcome | None, new: Outcome) -> tuple[Outcome, Outcome]:
    """Return the outcomes of baseline and model for one item; both are failures when one was not answered or judged."""
    if pair is not None and not pair.failure:
        return replace(pair.old, score=_pair_score(pair.winner, "baseline")), replace(pair.new, score=_pair_score(pair.winner, "model"))
    if pair is not None:
        error = f"{NOT_JUDGED}: {pair.failure}"
        return Failure(new.example, error, pair.old.reply), Failure(new.example, error, pair.new.reply)
    failures = [outcome if isinstance(outcome, Failure) else None for outcome in (old or Failure(new.example, "no reply"), new)]
    missing = next(failure.error for failure in failures if failure is not None)
    replies = [outcome.reply if isinstance(outcome, Item) else None for outcome in (old, new)]
    error = f"{NOT_JUDGED}: the other model did not answer: {missing}"
    result = [failure or Failure(new.example, error, reply) for failure, reply in zip(failures, replies, strict=True)]
    return result[0], result[1]


def _pair_score(winner: str, own: str) -> Score:
    result = "tied" if winner == "tie" else "won" if winner == own else "lost"
    stats = {"n": 1.0, "points": {"won": 1.0, "tied": 0.5, "lost": 0.0}[result]}
    stats |= {name: float(name == result) for name in ("won", "lost", "tied")}
    return Score(stats, result, ("lost",) if result == "lost" else ())


def _item_of(request_id: str) -> str:
    return request_id.partition("#")[2]
