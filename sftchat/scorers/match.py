"""Scorers of short answers by their text: ``exact``, ``contains`` and ``regex``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sftchat.errors import UsageError
from sftchat.scorers.base import ACCURACY, Answers, Scorer, answer_form, decided, gold_required, whole_word
from sftchat.types import Example, Reply, Score


def exact(*, extract: str = "whole", ignore_case: bool = True, ignore_punctuation: bool = True) -> Scorer:
    """Score whether the answer equals the gold answer in normal form.

    ``{"gold": "Paris"}`` with the reply ``paris.`` is right; with ``It is Paris`` it is wrong (``wrong_answer``).

    Args:
        extract: Where the answer stands in reply and gold, see ``EXTRACTIONS``.
        ignore_case: Whether case does not matter.
        ignore_punctuation: Whether surrounding quotes and final punctuation do not matter.

    Raises:
        UsageError: When ``extract`` is invalid.
    """
    answers = Answers(extract)

    def form(text: str) -> str:
        return answer_form(text, ignore_case=ignore_case, ignore_punctuation=ignore_punctuation)

    def score(example: Example, reply: Reply) -> Score:
        answer, marked = answers.of(reply.text)
        right = form(answer) == form(answers.gold(example))
        return decided(right, form(answer), reply, marked=marked)

    settings = {"extract": extract, "ignore_case": ignore_case, "ignore_punctuation": ignore_punctuation}
    return Scorer("exact", score, (ACCURACY,), gold_required, settings)


def contains(*, extract: str = "whole", ignore_case: bool = True, alternatives: str = "") -> Scorer:
    """Score whether the answer contains the gold answer; Latin words and numbers only as whole words.

    ``{"gold": "Paris"}`` with the reply ``It is Paris.`` is right; with ``Parisian`` it is wrong (``not_contained``).

    Args:
        extract: Where the answer stands, see ``EXTRACTIONS``.
        ignore_case: Whether case does not matter.
        alternatives: Separator of several golds of which one suffices, such as ``|``; empty for one gold.

    Raises:
        UsageError: When ``extract`` is invalid.
    """
    answers = Answers(extract)

    def form(text: str) -> str:
        return answer_form(text, ignore_case=ignore_case)

    def score(example: Example, reply: Reply) -> Score:
        answer, marked = answers.of(reply.text)
        gold = answers.gold(example)
        golds = [part for part in gold.split(alternatives) if part.strip()] if alternatives else [gold]
        text = form(answer)
        right = text == form(gold) or any(_contains_words(text, form(part)) for part in golds)
        return decided(right, text, reply, "not_contained", marked=marked)

    return Scorer(
        "contains", score, (ACCURACY,), gold_required, {"extract": extract, "ignore_case": ignore_case, "alternatives": alternatives}
    )


def _contains_words(text: str, value: str) -> bool:
    return bool(value) and re.search(whole_word(value), text) is not None


def regex(pattern: str = "", *, extract: str = "whole", ignore_case: bool = False) -> Scorer:
    r"""Score whether a regular expression matches in the answer.

    ``regex(r"\d{4}-\d\d-\d\d")`` with the reply ``on 2026-12-01`` is right. Without ``pattern``, the gold reply is the pattern.

    Args:
        pattern: Pattern for all rows; empty for the gold reply of each row. A gold reply that is given as the answer is right too.
        extract: Where the answer stands, see ``EXTRACTIONS``.
        ignore_case: Whether case does not matter.

    Raises:
        UsageError: When ``pattern`` or ``extract`` is invalid.
    """
    answers, flags = Answers(extract), re.MULTILINE | (re.IGNORECASE if ignore_case else 0)
    if problem := _pattern_problem(pattern, flags):
        raise UsageError(f"pattern '{pattern}' {problem}")

    def score(example: Example, reply: Reply) -> Score:
        answer, marked = answers.of(reply.text)
        gold = answers.gold(example)
        wanted = pattern or gold
        matches = not _pattern_problem(wanted, flags) and re.search(wanted, answer, flags) is not None
        return decided(bool(wanted) and (matches or answer == gold), answer, reply, "no_match", marked=marked)

    def validate_row(example: Example) -> Iterable[str]:
        if pattern:
            return ()
        if problem := _pattern_problem(example.gold or "", flags):
            return (f"the gold reply {problem}",)
        return gold_required(example)

    return Scorer("regex", score, (ACCURACY,), validate_row, {"pattern": pattern, "extract": extract, "ignore_case": ignore_case})


def _pattern_problem(pattern: str, flags: int) -> str:
    try:
        re.compile(pattern, flags)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no regular expression: {error}"
    return ""
