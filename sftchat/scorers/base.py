"""What all scorers share: the ``Scorer`` object, extraction of the answer from a reply, one normal form, and error classes of whole replies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sftchat.errors import UsageError
from sftchat.task import Metric, no_problems, rate
from sftchat.text import normalise
from sftchat.types import Example, Reply, Score

REPLY_ERRORS = {
    "empty": "no text at all",
    "refused": "the model declines to answer",
    "truncated": "ended by the token limit, and wrong",
}
"""Error classes of whole replies, in addition to those of each scorer."""

REFUSAL = re.compile(
    r"抱歉|对不起|很遗憾|(?:我|目前|暂时)(?:无法|不能|没办法|没法)|不(?:便|会)回答|\bsorry\b|\bI(?: am|'m|’m) (?:unable|not able)|\bI (?:cannot|can't|can’t|won't|won’t)\b",
    re.IGNORECASE,
)
"""Matches replies in which a model declines, in Chinese and English."""

ACCURACY = rate("accuracy", "correct", "share of right replies")
"""Metric of every scorer that decides whether a reply is right; its counts are ``correct`` and ``n``."""

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
WORD_CHARACTER = r"[^\W_\u0e00-\u0e7f\u1100-\u11ff\u3005-\u30ff\u3130-\u318f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
"""Regular expression for a letter or digit of a script with spaces between words; Chinese, Japanese, Korean and Thai ones match as substrings."""
_SPACE_BESIDE_HAN = re.compile(f"(?<=[{_HAN}]) | (?=[{_HAN}])")
_QUOTES = " \"'“”‘’「」『』《》`*_"
_FINAL_PUNCTUATION = ".。!?,;:、…~"


@dataclass(frozen=True)
class Scorer:
    """Scores replies to examples; ``sftchat.scorers`` has functions that make one.

    Attributes:
        name: Name of the function that made it, such as ``exact``.
        score: Scores one reply; never raises because of a reply. Returns the same count keys for every reply.
        metrics: Metrics of its counts; the first is the primary one.
        validate_row: Yields the problems of a row, such as a gold reply that the scorer cannot read, one line each.
        settings: Arguments that affect the scores, as JSON values; they are part of the comparison with a baseline.
        labels: The possible answers, if there are few; reports then have a confusion table.
        continuations: Returns the texts whose likelihood is scored instead of a generated reply; None for scorers of generated replies.
        ended: Whether the likelihood includes that of the end-of-reply token.
        raw_prompt: Whether the continuations follow the text of the messages without a chat template.
    """

    name: str
    score: Callable[[Example, Reply], Score]
    metrics: tuple[Metric, ...]
    validate_row: Callable[[Example], Iterable[str]] = no_problems
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    continuations: Callable[[Example], Sequence[str]] | None = None
    ended: bool = False
    raw_prompt: bool = False


def task_fields(scorer: Scorer) -> dict[str, Any]:
    """Return the attributes of ``Task`` that a scorer determines."""
    return {
        "score": scorer.score,
        "metrics": scorer.metrics,
        "validate_row": scorer.validate_row,
        "continuations": scorer.continuations,
        "ended_continuations": scorer.ended,
    }


def answer_form(text: str, *, ignore_case: bool = True, ignore_punctuation: bool = True) -> str:
    """Return the normal form in which short answers are compared.

    Applies ``sftchat.text.normalise`` (width, invisible characters, white space) and removes spaces beside Chinese characters.

    Args:
        text: Any text; the result is one line.
        ignore_case: Fold the case.
        ignore_punctuation: Remove surrounding quotes and emphasis, and final punctuation.
    """
    form = _SPACE_BESIDE_HAN.sub("", normalise(text))
    if ignore_punctuation:
        form = form.strip(_QUOTES).rstrip(_FINAL_PUNCTUATION + _QUOTES)
    return form.casefold() if ignore_case else form


def whole_word(form: str) -> str:
    """Return a regular expression that finds a text where it is not part of a longer word or number.

    Args:
        form: A text that is not empty, as returned by ``answer_form``.
    """
    before = f"(?<!{WORD_CHARACTER})" if re.match(WORD_CHARACTER, form[0]) else ""
    after = f"(?!{WORD_CHARACTER})" if re.match(WORD_CHARACTER, form[-1]) else ""
    if form[0].isdecimal():
        before += r"(?<!\d[.,])"
    if form[-1].isdecimal():
        after += r"(?![.,]\d)"
    return before + re.escape(form) + after


Extractor = Callable[[str], "str | None"]
"""Finds the answer in a text; None when the text does not mark one."""

EXTRACTIONS = {
    "whole": "the whole text",
    "last-line": "the last line that is not blank",
    "fence": "the content of the last code block between ```",
    "boxed": r"the content of the last \boxed{…}",
    "after:TEXT": "the rest of the line after the last TEXT; the next line that is not blank when the rest is empty; case does not matter",
    "regex:PATTERN": "the first group of the last match of a regular expression, or the whole match without a group",
}
"""Ways to extract an answer, as written in ``extract``, and what they return."""


def make_extractor(extract: str) -> Extractor:
    """Return the function that finds an answer.

    Args:
        extract: One of ``EXTRACTIONS``, such as ``after:Answer:`` or ``last-line``.

    Raises:
        UsageError: When it is none of them, or its regular expression is invalid.
    """
    kind, _, argument = extract.partition(":")
    if kind == "after" and argument.strip():
        return lambda text: _after(text, argument.strip())
    if kind == "regex" and argument:
        try:
            pattern = re.compile(argument, re.MULTILINE)
        except re.error as error:
            raise UsageError(f"extract '{extract}' is no regular expression: {error}") from None
        return lambda text: _last_match(text, pattern)
    simple: dict[str, Extractor] = {"whole": lambda text: text, "last-line": _last_line, "fence": _last_fence, "boxed": _last_boxed}
    if extract not in simple:
        raise UsageError(f"unknown extract '{extract}' (available: {', '.join(EXTRACTIONS)})")
    return simple[extract]


def _after(text: str, marker: str) -> str | None:
    matches = [*re.finditer(re.escape(marker), text, re.IGNORECASE)]
    if not matches:
        return None
    lines = text[matches[-1].end() :].split("\n")
    return next((line.strip() for line in lines if line.strip(" \t\r*_`")), "")


def _last_match(text: str, pattern: re.Pattern[str]) -> str | None:
    match = None
    for match in pattern.finditer(text):  # noqa: B007  # the last match is used below
        pass
    if match is None:
        return None
    return (match[1] if pattern.groups else match[0]) or ""


def _last_line(text: str) -> str | None:
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), None)


_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)


def _last_fence(text: str) -> str | None:
    fences = _FENCE.findall(text)
    return fences[-1][1].rstrip("\n") if fences else None


def _last_boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start, depth = start + len("\\boxed{"), 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if not depth:
            return text[start:position]
    return text[start:]


@dataclass(frozen=True)
class Answers:
    """Finds the answers of replies and of gold replies in the same way.

    A text that does not mark an answer is its own answer: a gold reply usually has no marker, and a reply is then compared as a whole.

    Attributes:
        extract: One of ``EXTRACTIONS``.
    """

    extract: str = "whole"
    _extractor: Extractor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile ``extract``; raises ``UsageError`` when it is invalid."""
        object.__setattr__(self, "_extractor", make_extractor(self.extract))

    def of(self, text: str) -> tuple[str, bool]:
        """Return the answer in a text, stripped, and whether the text marks one."""
        answer = self._extractor(text)
        return (text if answer is None else answer).strip(), answer is not None

    def gold(self, example: Example) -> str:
        """Return the answer of an example's gold reply; empty without one."""
        return self.of(example.gold or "")[0]


def with_reply_errors(score: Score, reply: Reply, *, marked: bool = True) -> Score:
    """Add the error classes of the whole reply to the score of a wrong reply; a score without errors is returned unchanged.

    Args:
        score: Score with the scorer's own error classes.
        reply: The scored reply.
        marked: Whether the reply marked its answer; otherwise ``no_marker`` is added.
    """
    if not score.errors:
        return score
    if not reply.text.strip():
        return replace(score, errors=("empty",))
    errors = ("refused",) if reply.refused or REFUSAL.search(reply.text) else score.errors
    errors += () if marked else ("no_marker",)
    return replace(score, errors=(*errors, *(("truncated",) if reply.finish_reason == "length" else ())))


def decided(right: bool, answer: str, reply: Reply, error: str = "wrong_answer", *, marked: bool = True, expected: str = "") -> Score:
    """Return the score of a reply that is right or wrong, with the counts ``n`` and ``correct``.

    Args:
        right: Whether it is right.
        answer: The answer found in the reply, normalised.
        reply: The reply.
        error: Error class of a wrong reply.
        marked: Whether the reply marked its answer.
        expected: The gold answer, if answers are one of few labels.
    """
    score = Score({"n": 1, "correct": int(right)}, answer, () if right else (error,), expected=expected)
    return with_reply_errors(score, reply, marked=marked)


def gold_required(example: Example) -> tuple[str, ...]:
    """Return the problem of a row without a gold reply."""
    return () if example.gold else ("the row has no gold reply to compare with",)
