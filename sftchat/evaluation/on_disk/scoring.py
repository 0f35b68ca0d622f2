"""A million stored replies scored in one pass: what every item counts is kept as numbers, its texts stay on disk and are read again when shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sftchat.errors import NotComparableError
from sftchat.evaluation.baseline import Baseline
from sftchat.evaluation.comparable import is_same, of_another_evalset, recounted
from sftchat.evaluation.evalset import cluster_of
from sftchat.evaluation.items import Item, Outcome, Scorer, other_keys, score_each
from sftchat.evaluation.on_disk.examples import StoredExamples
from sftchat.evaluation.on_disk.spreading import spread
from sftchat.evaluation.scored import Figures, Replies, Scored, figures_of, joined, parts
from sftchat.task import Task


@dataclass
class _Found:
    """What a process found out about some examples: the figures of every file, and what keeps a baseline from being compared with."""

    figures: list[Figures]
    changed: list[str]
    recounted: NotComparableError | None


def score_stored(
    task: Task,
    examples: StoredExamples,
    stored: Sequence[Replies],
    baseline: Baseline | None = None,
    cluster: str = "",
    processes: int | None = None,
) -> list[Scored]:
    """Score files of replies to one gold set, all of them in one pass.

    Args:
        task: Scores.
        examples: The gold set.
        stored: The files, by id; an example that one lacks is left out of its items. The first is the baseline's, where there is one.
        baseline: Must have asked the same and counted alike.
        cluster: Metadata key of items that belong together; empty where they stand alone.
        processes: As many as there are processors by default.

    Raises:
        DataError: When a row or a reply is malformed.
        NotComparableError: When the baseline is of other items, or was counted by another scorer.
        UsageError: When an item lacks the key.
        PluginError: When the task's scorer breaks its contract.
    """

    def measured(part: range) -> _Found:
        return _measured(task, examples, stored, baseline, cluster, part)

    found = list(spread(measured, parts(len(examples)), processes))
    _check_keys(task, [figures for one in found for figures in one.figures])
    if baseline is not None:
        if changed := [identity for one in found for identity in one.changed]:
            raise of_another_evalset(baseline, changed)
        if error := next((one.recounted for one in found if one.recounted), None):
            raise error
    scored = []
    for number, replies in enumerate(stored):
        asked = [identity for identity in examples.ids if identity in replies]
        figures = joined([one.figures[number] for one in found])
        scored.append(Scored(asked, figures, partial(_outcome, task, examples, replies), cluster, spread))
    return scored


def _check_keys(task: Task, figures: Sequence[Figures]) -> None:
    """Refuse a scorer that counted other keys in one part than in another; within a part its ``Scorer`` did.

    Raises:
        PluginError: Names an item of either.
    """
    counted = [(one.first, one.table.keys) for one in figures if one.table is not None]
    for id, keys in counted:
        if keys != counted[0][1]:
            raise other_keys(task, (id, keys), counted[0])


def _outcome(task: Task, examples: StoredExamples, replies: Replies, identity: str) -> Outcome | None:
    """What the reply to an example scores, read again."""
    reply = replies.get(identity)
    return None if reply is None else score_each(Scorer(task), examples[examples.places[identity]], [reply])[0]


def _measured(
    task: Task, examples: StoredExamples, stored: Sequence[Replies], baseline: Baseline | None, cluster: str, part: range
) -> _Found:
    """Score some examples, one step after the other for all of them: to take all steps with each is a fifth slower."""
    asked = [examples[place] for place in part]
    for example in asked if cluster else ():
        cluster_of(example, cluster)  # refused whether it was answered or not
    then = [baseline.items.get(example.id) if baseline is not None else None for example in asked]
    said = [[replies.get(example.id) for example in asked] for replies in (stored if baseline is None else stored[1:])]
    if baseline is not None:  # its lines are read once
        said.insert(0, [item.reply if item is not None else None for item in then])
    scorer = Scorer(task)
    outcomes = [score_each(scorer, example, replies) for example, replies in zip(asked, zip(*said, strict=True), strict=True)]
    figures = [figures_of(of_file, cluster) for of_file in zip(*outcomes, strict=True)]
    pairs = [(item, outcome) for item, (outcome, *_) in zip(then, outcomes, strict=True) if item is not None and isinstance(outcome, Item)]
    changed = [outcome.example.id for item, outcome in pairs if not is_same(outcome.example, item)]
    errors = (recounted(baseline, outcome, item) for item, outcome in pairs) if baseline is not None else iter(())
    return _Found(figures, changed, next(filter(None, errors), None))
