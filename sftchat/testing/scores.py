"""Contract clauses on scores and metrics."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sftchat._util.plugin_calls import Malformed
from sftchat.errors import PluginError, class_and_message, message_of
from sftchat.evaluation.statistics import Array, Counts, apply_metric, build_counts, compute_metric
from sftchat.task import Metric, Task, score_reply
from sftchat.testing.fuzz import garbage_replies
from sftchat.types import Example, Reply, Score

TOLERANCE = 1e-9
MAX_GARBAGE_SECONDS = 1.0
"""Maximum CPU time for the longest garbage reply; above it a scorer is slower than linear."""


@dataclass(frozen=True)
class ScoredReply:
    """A reply and its score.

    Attributes:
        example: The prompt.
        reply: The reply.
        score: The score; None when scoring failed.
        fault: Why scoring failed, as the rest of a sentence about the scorer; empty otherwise.
    """

    example: Example
    reply: Reply
    score: Score | None
    fault: str = ""

    @classmethod
    def of(cls, task: Task, example: Example, reply: Reply | str) -> ScoredReply:
        """Score a reply and catch any exception."""
        reply_object = Reply(reply) if isinstance(reply, str) else reply
        try:
            score = score_reply(task, example, reply_object)
        except PluginError as error:
            cause = error.__cause__
            if isinstance(cause, RecursionError):
                fault = "recurses without end"
            elif isinstance(cause, Malformed):
                fault = message_of(cause)
            else:
                fault = f"raises {class_and_message(cause or error)}"
            return cls(example, reply_object, None, fault)
        fault = _find_fault(score)
        return cls(example, reply_object, None if fault else score, fault)

    @property
    def short_reply(self) -> str:
        """The text of the reply, shortened for a message."""
        text = self.reply.text
        return ascii(text) if len(text) <= 40 else f"{text[:40]!a}… ({len(text)} characters)"


def gold_faults(task: Task, gold_scores: Sequence[ScoredReply]) -> Iterator[str]:
    """Yield the first gold reply that cannot be scored or gets an error class."""
    for scored in gold_scores:
        name = scored.example.id or "without an id"
        if scored.score is None:
            yield f"the scorer {scored.fault} (on the gold reply of row {name})"
            return
        if scored.score.errors:
            yield f"the gold reply of row {name} against itself has the faults {', '.join(scored.score.errors)}"
            return


def garbage_faults(task: Task, examples: Sequence[Example], seed: int) -> tuple[list[ScoredReply], list[str]]:
    """Score garbage replies; return the scores and the violations, one of each kind."""
    golds = [example.gold or "" for example in examples[:50]]
    keys = None
    outcomes: list[ScoredReply] = []
    faults: dict[str, str] = {}  # by kind
    for index, reply in enumerate(garbage_replies(seed, golds)):
        example = examples[index % len(examples)]
        started = time.thread_time()
        outcome = ScoredReply.of(task, example, reply)
        seconds = time.thread_time() - started
        outcomes.append(outcome)
        if outcome.score is None:
            faults.setdefault(outcome.fault.split(":")[0], f"the scorer {outcome.fault} (on the reply {outcome.short_reply})")
            continue
        keys = keys or sorted(outcome.score.stats)
        if sorted(outcome.score.stats) != keys:
            faults.setdefault(
                "keys",
                f"the scorer counts {', '.join(sorted(outcome.score.stats))} for the reply {outcome.short_reply} and {', '.join(keys)} for others",
            )
        if ScoredReply.of(task, example, reply).score != outcome.score:
            faults.setdefault("again", f"the scorer scores the reply {outcome.short_reply} differently the second time")
        if seconds > MAX_GARBAGE_SECONDS:
            faults.setdefault("slow", f"the scorer takes {seconds:.1f} s for the reply {outcome.short_reply}")
    return outcomes, list(faults.values())


def metric_faults(task: Task, gold_scores: Sequence[ScoredReply], garbage_scores: Sequence[ScoredReply]) -> Iterator[str]:
    """Yield metrics that are not functions of sums, that improve when replies get worse, or that do not separate right from wrong."""
    try:
        gold_counts = build_counts(scored.score for scored in gold_scores if scored.score is not None)
        garbage_counts = build_counts(scored.score for scored in garbage_scores if scored.score is not None)
    except PluginError as error:
        yield str(error)
        return
    if garbage_counts.keys != gold_counts.keys:
        yield f"the scorer counts {', '.join(gold_counts.keys)} for gold replies and {', '.join(garbage_counts.keys)} for others"
        return
    for metric in task.metrics:
        try:
            yield from _faults_of_metric(task, metric, gold_counts, garbage_counts, gold_scores)
        except PluginError as error:
            yield str(error)


def speed_faults(task: Task, examples: Sequence[Example], milliseconds: float) -> Iterator[str]:
    """Yield a violation if scoring is too slow for a chat. Each reply is scored three times; the median of the shortest CPU times counts."""
    times = []
    for example in examples[:20]:
        reply = Reply(example.gold or "")
        best = math.inf
        for _ in range(3):
            started = time.thread_time()
            score_reply(task, example, reply)
            best = min(best, time.thread_time() - started)
        times.append(1000 * best)
    median = statistics.median(times)
    if median > milliseconds:
        yield f"scoring a gold reply takes {median:.0f} ms of CPU time; {milliseconds:g} ms is the most for a score that is shown in a chat"


def _faults_of_metric(
    task: Task, metric: Metric, gold_counts: Counts, garbage_counts: Counts, gold_scores: Sequence[ScoredReply]
) -> Iterator[str]:
    import numpy as np

    name, sign = f"metric '{metric.name}'", 1 if metric.higher_is_better else -1
    gold_value = compute_metric(metric, gold_counts)
    apply_metric(metric, gold_counts, np.zeros((2, gold_counts.columns(metric).shape[1])))  # the metric must be defined for 0/0
    columns = gold_counts.columns(metric)
    by_row = [float(apply_metric(metric, gold_counts, row)) for row in columns]
    by_array = apply_metric(metric, gold_counts, columns)
    if not np.allclose(by_row, by_array):
        yield f"{name} gives other values for arrays than for numbers; use sftchat.ratio and numpy's functions"
    if metric.per_item_rate and not (np.isin(columns[:, 0], (0, 1)).all() and (columns[:, 1] == 1).all()):
        yield f"{name} says that every item counts 0 or 1 of 1, but '{metric.stats[0]}' or '{metric.stats[1]}' do not"
    empty_scores = [ScoredReply.of(task, scored.example, "").score for scored in gold_scores]
    empty_counts = build_counts(score for score in empty_scores if score is not None)
    if len(empty_counts.rows) == len(gold_counts.rows):
        mixed_sums = _replace_gradually(columns, empty_counts.columns(metric))
        values = [sign * float(apply_metric(metric, gold_counts, sums)) for sums in mixed_sums]
        if metric is task.metric and any(worse > better + TOLERANCE for better, worse in itertools.pairwise(values)):
            yield f"{name} gets better when a right reply is replaced by an empty one"
        if values[-1] > values[0] + TOLERANCE:
            yield f"{name} is better for empty replies ({sign * values[-1]:.3g}) than for gold replies ({gold_value:.3g}); is higher_is_better right?"
    garbage_value = compute_metric(metric, garbage_counts)
    if sign * garbage_value > sign * gold_value + TOLERANCE:
        yield f"{name} is better for garbage ({garbage_value:.3g}) than for gold replies ({gold_value:.3g})"
    elif metric is task.metric and sign * garbage_value > sign * gold_value - TOLERANCE:
        yield f"{name}, the primary one, is {gold_value:.3g} for gold replies and for garbage alike: it cannot tell them apart"


def _replace_gradually(gold_rows: Array, empty_rows: Array) -> Iterator[Array]:
    """Yield the sums of the counts with 0, 1, 2, … of the gold replies replaced by empty ones."""
    for replaced in range(len(gold_rows) + 1):
        yield empty_rows[:replaced].sum(axis=0) + gold_rows[replaced:].sum(axis=0)


def _find_fault(score: Score) -> str:
    """Return the problem of a valid score that has a negative count; empty if there is none."""
    for name, stats in (("stats", score.stats), *score.groups.items()):
        for key, count in stats.items():
            if count < 0:
                return f"counts {count!r} as '{key}' of {name}; counts are finite numbers from 0"
    return ""
