"""Rubrics: what a judge rates, on which scales, and from which score on a reply passes; read from TOML files."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sftchat._util.parsing import from_json, load_json, read_text
from sftchat.errors import DataError, UsageError, os_reason
from sftchat.types import SamplingParams

CRITERION_NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED_NAMES = frozenset(("n", "passed", "pass_rate", "reason", "score"))
"""Names that a criterion cannot have: the counts and metrics of a judged evaluation, and the other key of a verdict."""
_FRACTION = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(?:/\s*(\d+(?:\.\d+)?)\s*)?")


@dataclass(frozen=True)
class Criterion:
    """One thing that a judge rates.

    Attributes:
        name: Lower-case letters, digits and ``_``; also the name of its metric.
        description: What to rate, for the judge.
        min: Lowest number of the scale.
        max: Highest number of the scale.
        labels: The ratings, the lowest first, when they are words; ``min`` and ``max`` are then not read.
        weight: Weight in the score of a reply, above 0.
    """

    name: str
    description: str
    min: float = 1
    max: float = 5
    labels: tuple[str, ...] = ()
    weight: float = 1

    @property
    def scale(self) -> str:
        """The scale in words, for the judge."""
        if self.labels:
            return f"one of {', '.join(json.dumps(label, ensure_ascii=False) for label in self.labels)}, the lowest first"
        return f"a number from {self.min:g} (lowest) to {self.max:g} (highest)"

    @property
    def highest(self) -> str | float:
        """The highest rating."""
        return self.labels[-1] if self.labels else self.max

    def rating(self, share: float) -> str | float:
        """Return the rating on the scale for a share of it; the reverse of ``parse``."""
        if self.labels:
            return self.labels[round(share * (len(self.labels) - 1))]
        return round(self.min + share * (self.max - self.min), 6)

    def parse(self, answer: Any) -> float | None:
        """Return a judge's rating as a share of the scale, from 0 to 1; None when it is none.

        Args:
            answer: A number, ``"4"``, ``"4/5"``, a label in any case, or an object with one of these under ``score``, ``rating`` or ``value``.
        """
        if isinstance(answer, dict):
            answer = next((answer[key] for key in ("score", "rating", "value") if key in answer), None)
        if self.labels:
            places = [place for place, label in enumerate(self.labels) if isinstance(answer, str) and _same(label, answer)]
            return places[0] / (len(self.labels) - 1) if places else None
        if isinstance(answer, str) and (match := _FRACTION.fullmatch(answer)) and match[2] in (None, f"{self.max:g}"):
            answer = float(match[1])
        if isinstance(answer, bool) or not isinstance(answer, (int, float)) or not self.min <= answer <= self.max:
            return None
        return (answer - self.min) / (self.max - self.min)


def _same(label: str, answer: str) -> bool:
    return label.strip().casefold() == answer.strip().casefold()


@dataclass(frozen=True)
class RatedExample:
    """A rated reply that the judge sees before its task.

    Attributes:
        prompt: Text of the user.
        reply: The rated reply.
        scores: Rating by name of the criterion, on its scale.
        reason: One sentence.
        gold: Reference reply; None without one.
    """

    prompt: str
    reply: str
    scores: Mapping[str, Any]
    reason: str = ""
    gold: str | None = None


@dataclass(frozen=True)
class Rubric:
    """A rubric; the keys of its TOML file are the attributes.

    Attributes:
        name: Name in reports.
        criteria: What the judge rates, at least one; without any, the rubric is only for ``--against``.
        instructions: Instructions for the judge, such as who the users are.
        pass_threshold: A reply passes when its score, the weighted mean of the criteria from 0 to 1, is at least this.
        examples: Rated replies that the judge sees before each of its tasks.
        max_new_tokens: Maximum number of tokens of a verdict; a judge that thinks first needs more than 512.
        agreement: File with the agreement of the judge with people, written by ``sftchat judge-check --save``; relative to the rubric's folder.
    """

    name: str
    criteria: tuple[Criterion, ...] = ()
    instructions: str = ""
    pass_threshold: float = 0.7
    examples: tuple[RatedExample, ...] = ()
    max_new_tokens: int = 512
    agreement: str = ""

    def __post_init__(self) -> None:
        """Check names, scales and examples; raises ``ValueError``."""
        names = [criterion.name for criterion in self.criteria]
        for criterion in self.criteria:
            if not CRITERION_NAME.fullmatch(criterion.name) or criterion.name in RESERVED_NAMES:
                raise ValueError(
                    f"criterion '{criterion.name}' must be lower-case letters, digits and '_', starting with a letter, "
                    f"and none of {', '.join(sorted(RESERVED_NAMES))}"
                )
            if names.count(criterion.name) > 1:
                raise ValueError(f"criterion '{criterion.name}' stands twice")
            if criterion.labels and len({label.strip().casefold() for label in criterion.labels}) < max(2, len(criterion.labels)):
                raise ValueError(f"criterion '{criterion.name}' needs at least two labels, all different")
            if not criterion.labels and not criterion.min < criterion.max:
                raise ValueError(f"criterion '{criterion.name}' has min {criterion.min:g} and max {criterion.max:g}; min must be smaller")
            if not 0 < criterion.weight < float("inf"):
                raise ValueError(f"criterion '{criterion.name}' has weight {criterion.weight:g}, must be above 0")
        if not 0 <= self.pass_threshold <= 1:
            raise ValueError(f"pass_threshold is {self.pass_threshold:g}, must be from 0 to 1")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}, must be at least 1")
        for number, example in enumerate(self.examples, start=1):
            if missing := sorted(set(names) ^ set(example.scores)):
                raise ValueError(f"example {number} must have one score for each criterion and no other: {', '.join(missing)}")
            for criterion in self.criteria:
                if criterion.parse(example.scores[criterion.name]) is None:
                    raise ValueError(f"example {number}: {criterion.name} is {example.scores[criterion.name]!r}, must be {criterion.scale}")

    @property
    def hash(self) -> str:
        """Hash of everything that affects verdicts."""
        content = json.dumps(asdict(replace(self, agreement="")), sort_keys=True, default=str)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def sampling(self) -> SamplingParams:
        """Sampling parameters of the judge: greedy, so that the same reply gets the same verdict."""
        return SamplingParams(max_new_tokens=self.max_new_tokens)

    def weighted(self, shares: Mapping[str, float]) -> float:
        """Return the score of a reply, from 0 to 1: the weighted mean of the criteria's shares."""
        total = sum(criterion.weight for criterion in self.criteria)
        return sum(criterion.weight * shares[criterion.name] for criterion in self.criteria) / total


def read_rubric(path: Path) -> Rubric:
    """Read a rubric; a relative ``agreement`` becomes a path from the working folder.

    Raises:
        DataError: When the file is missing or malformed; names the key.
    """
    try:
        rubric = from_json(Rubric, tomllib.loads(read_text(path)))
    except OSError as error:
        raise DataError(f"cannot read the rubric: {os_reason(error)}", str(path)) from None
    except ValueError as error:  # also of TOML, UTF-8 and Rubric
        raise DataError(f"not a rubric: {' '.join(str(error).split())}", str(path)) from None
    return replace(rubric, agreement=str(path.parent / rubric.agreement)) if rubric.agreement else rubric


@dataclass(frozen=True)
class RecordedAgreement:
    """The agreement of a judge with people, as ``sftchat judge-check --save`` recorded it.

    Attributes:
        alpha: Krippendorff's alpha; None when undefined.
        low: Lower bound of its 95 % interval; None without one.
        high: Upper bound.
        items: Number of items with a rating of the judge and of a person.
        people: Number of people.
    """

    alpha: float | None
    low: float | None
    high: float | None
    items: int
    people: int

    @property
    def words(self) -> str:
        """The agreement on one line."""
        if self.alpha is None:
            return f"undefined on {self.items} items"
        interval = "" if self.low is None or self.high is None else f" [{self.low:.2f}, {self.high:.2f}]"
        raters = f"{self.people} people" if self.people > 1 else "1 person"
        return f"α {self.alpha:.2f}{interval} with {raters} on {self.items} items"


def read_agreement(path: Path) -> RecordedAgreement:
    """Read the file of ``sftchat judge-check --save``.

    Raises:
        DataError: When it is missing or malformed.
    """
    try:
        row = load_json(read_text(path))
        (alpha,) = (statistic for statistic in row["with_people"] if statistic["name"] == "alpha")
        members = {"alpha": alpha["value"], "low": alpha["low"], "high": alpha["high"], "items": row["items"], "people": len(row["people"])}
        return from_json(RecordedAgreement, members)
    except OSError as error:
        raise DataError(f"cannot read the judge's agreement with people: {os_reason(error)}", str(path)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"not written by 'sftchat judge-check --save': {error}", str(path)) from None


def require_criteria(rubric: Rubric) -> None:
    """Raise ``UsageError`` for a rubric without criteria."""
    if not rubric.criteria:
        raise UsageError(f"rubric '{rubric.name}' has no criteria to score by; add [[criteria]], or compare with --against MODEL|FILE")
