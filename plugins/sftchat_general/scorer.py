"""Scorer of the general task: correctness, overlap with the gold, and error classes.

A reply is correct when it satisfies all constraints of its row; without constraints it must equal the gold, normalised and case-insensitive.
Thoughts of a reasoning model are removed first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sftchat import DataError, Example, Reply, Score
from sftchat.scorers import rouge_l_f1
from sftchat.text import strip_thinking, tokens
from sftchat_general.constraints import CONSTRAINT_ERRORS, Constraint, constraint_problem, violations
from sftchat_general.reading import plain_form

STATS = {
    "n": "1",
    "correct": "1 if the reply does what was asked",
    "exact": "1 if the reply is the gold in normal form; case and closing punctuation do not matter",
    "rouge_l": "overlap of the reply with the gold, from 0 to 1",
}
"""Keys of ``Score.stats`` and their meaning."""

REPLY_ERRORS = {
    "empty": "no text at all",
    "refused": "the model declines",
    "truncated": "ended by the token limit",
}
"""Error classes of whole replies, in addition to ``constraints.CONSTRAINT_ERRORS``."""

ERRORS = (*CONSTRAINT_ERRORS, *REPLY_ERRORS)

_REFUSAL = re.compile(
    r"抱歉|对不起|很遗憾|(?:我|目前|暂时)(?:无法|不能|没办法|没法)|不(?:便|会)回答|\bsorry\b|\bI(?: am|'m|’m) (?:unable|not able)|\bI (?:cannot|can't|can’t|won't|won’t)\b",
    re.IGNORECASE,
)


def score(example: Example, reply: Reply) -> Score:
    """Score one reply.

    Args:
        example: With a gold reply; its metadata may have ``constraints`` and a ``kind``, the slice of the counts.
        reply: Any reply.

    Raises:
        DataError: When the gold is missing, or a constraint is malformed; never because of the reply.
    """
    constraints = read_constraints(example)
    gold = example.gold or ""
    text = strip_thinking(reply.text).strip()
    answer = plain_form(text)
    exact = bool(text) and answer == plain_form(gold)
    question = example.messages[-1]["content"]
    errors: tuple[str, ...] = () if exact else ("wrong_answer",)
    if constraints:
        errors = violations(constraints, text, question)
        repeats_question = not exact and answer == plain_form(question)
        if repeats_question and not errors:  # a question may contain the text that its constraint requires
            errors = ("wrong_answer",)
    if errors and not text:
        errors = ("empty",)
    elif errors and _REFUSAL.search(text):
        errors = ("refused",)
    stats = {"n": 1, "correct": int(not errors), "exact": int(exact), "rouge_l": rouge_l_f1(gold, text, tokens)}
    truncated = ("truncated",) if reply.finish_reason == "length" else ()
    kind = example.metadata.get("kind")
    return Score(stats, answer, (*errors, *truncated), {kind: stats} if isinstance(kind, str) else {})


def read_constraints(example: Example) -> Sequence[Constraint]:
    """Return the constraints of a row.

    Raises:
        DataError: When the row has no gold or no turn, or a constraint is malformed.
    """
    source = example.source or example.id
    if example.gold is None or not example.messages:
        raise DataError("row has no gold to score against" if example.gold is None else "row has no turn that asks", source)
    constraints = example.metadata.get("constraints") or ()
    if not isinstance(constraints, (list, tuple)):
        raise DataError("constraints must be a list of objects", source)
    for constraint in constraints:
        if problem := constraint_problem(constraint):
            raise DataError(problem, source)
    return constraints
