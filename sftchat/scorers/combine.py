"""Scorers made of scorers: ``all_of``, ``any_of`` and ``weighted``; and ``function``, a scorer made of a Python function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sftchat._util.plugin_calls import Malformed, short_repr, to_number
from sftchat.errors import UsageError
from sftchat.scorers.base import ACCURACY, Scorer, with_reply_errors
from sftchat.task import Metric, ratio
from sftchat.types import Example, Reply, Score


@dataclass(frozen=True)
class Part:
    """A scorer within another.

    Attributes:
        scorer: The scorer.
        prefix: Start of the names of its counts and metrics, such as ``exact.``; different for every part.
        weight: Its weight in ``weighted``.
        settings: What ``parts`` has for it, as JSON values.
    """

    scorer: Scorer
    prefix: str
    weight: float
    settings: Mapping[str, Any]

    def prefixed(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Return counts with prefixed keys."""
        return {self.prefix + key: count for key, count in counts.items()}

    def own(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sums of this part without their prefix."""
        return {key.removeprefix(self.prefix): value for key, value in sums.items() if key.startswith(self.prefix)}

    def metric(self, metric: Metric) -> Metric:
        """Return a metric of the scorer as one of prefixed counts."""
        return replace(
            metric,
            name=self.prefix + metric.name,
            function=lambda sums: metric.function(self.own(sums)),
            stats=tuple(self.prefix + key for key in metric.stats),
        )


def all_of(*, parts: tuple[Any, ...]) -> Scorer:
    """Score whether a reply is right for all parts.

    With the parts ``contains`` and ``regex(pattern="^.{0,20}$")``, the reply ``It is Paris.`` to ``{"gold": "Paris"}`` is right, and a longer one with
    ``Paris`` is wrong (``no_match``).

    Args:
        parts: At least one scorer: a ``Scorer``, or an object with its ``name`` and arguments, such as ``{name = "exact", extract = "boxed"}``.

    Raises:
        UsageError: When a part is invalid.
    """
    return _decided("all_of", _make_parts(parts), all)


def any_of(*, parts: tuple[Any, ...]) -> Scorer:
    """Score whether a reply is right for at least one part.

    With the parts ``exact`` and ``numeric``, the reply ``about 12`` to ``{"gold": "12.0"}`` is right. A wrong reply has the error classes of all parts. A
    row is valid when one part can score it.

    Args:
        parts: As for ``all_of``.

    Raises:
        UsageError: When a part is invalid.
    """
    return _decided("any_of", _make_parts(parts), any)


def weighted(*, parts: tuple[Any, ...]) -> Scorer:
    """Score the weighted mean of the parts' primary metrics; a reply is right when it is right for all parts.

    With ``exact`` of weight 1 and ``rouge_l`` of weight 3, the reply ``The cat sits.`` to ``{"gold": "the cat sat"}`` is (0 + 3 · 0.667) / 4 = 0.5.

    Args:
        parts: As for ``all_of``, each with a ``weight`` above 0 (1 by default); from Python also a pair of ``Scorer`` and weight.

    Raises:
        UsageError: When a part or weight is invalid, or the primary metric of a part is better when lower.
    """
    made = _make_parts(parts, weights=True)
    for part in made:
        if not part.scorer.metrics[0].higher_is_better:
            raise UsageError(f"'{part.scorer.name}' cannot be a part of weighted: its metric is better when lower")
    total = sum(part.weight for part in made)
    primaries = [part.metric(part.scorer.metrics[0]) for part in made]

    def value(sums: Mapping[str, Any]) -> Any:
        shares = zip(made, primaries, strict=True)
        return sum(part.weight * primary.function(sums) for part, primary in shares) / total

    # a metric without keys reads all counts
    stats = tuple(key for primary in primaries for key in primary.stats) if all(primary.stats for primary in primaries) else ()
    terms = " + ".join(f"{part.weight:g} {primary.name}" for part, primary in zip(made, primaries, strict=True))
    metric = Metric("weighted", value, f"({terms}) / {total:g}", stats=stats)

    def score(example: Example, reply: Reply) -> Score:
        return _join(made, [part.scorer.score(example, reply) for part in made], {}, all)

    return _combined("weighted", made, metric, score, weights=True)


def _decided(name: str, parts: Sequence[Part], rule: Callable[[Iterable[bool]], bool]) -> Scorer:
    def score(example: Example, reply: Reply) -> Score:
        scores = [part.scorer.score(example, reply) for part in parts]
        right = rule(not score.errors for score in scores)
        return _join(parts, scores, {"n": 1, "correct": int(right)}, rule)

    return _combined(name, parts, ACCURACY, score, weights=False)


def _join(parts: Sequence[Part], scores: Sequence[Score], counts: Mapping[str, float], rule: Callable[[Iterable[bool]], bool]) -> Score:
    """Join the scores of parts; answer and expected label are those of the first part with labels, or else of the first right one."""
    stats, groups = dict(counts), dict[str, dict[str, float]]()
    for part, score in zip(parts, scores, strict=True):
        stats |= part.prefixed(score.stats)
        for group, group_counts in score.groups.items():
            counts_of_group = groups.setdefault(group, {})
            counts_of_group.update(part.prefixed(group_counts))
            if "gold" in group_counts:  # reports show it as the size of the slice
                counts_of_group.setdefault("gold", group_counts["gold"])
    right = rule(not score.errors for score in scores)
    errors = () if right else tuple(dict.fromkeys(error for score in scores for error in score.errors))
    labelled = (score for score in scores if score.expected)
    shown = next(labelled, next((score for score in scores if not score.errors), scores[0]))
    return Score(stats, shown.answer, errors, groups, shown.expected)


def _combined(name: str, parts: Sequence[Part], metric: Metric, score: Callable[[Example, Reply], Score], *, weights: bool) -> Scorer:
    def validate_row(example: Example) -> Iterable[str]:
        problems = [[*part.scorer.validate_row(example)] for part in parts]
        if name == "any_of" and not all(problems):
            return ()
        return dict.fromkeys(problem for part_problems in problems for problem in part_problems)

    metrics = (metric, *(part.metric(its) for part in parts for its in part.scorer.metrics))
    settings = [{**part.settings, **({"weight": part.weight} if weights else {})} for part in parts]
    labels = next((part.scorer.labels for part in parts if part.scorer.labels), ())
    return Scorer(name, score, metrics, validate_row, {"parts": settings}, labels)


def _make_parts(parts: Sequence[Any], *, weights: bool = False) -> tuple[Part, ...]:
    """Make the scorers of ``parts``."""
    if not parts:
        raise UsageError("parts is empty, must be at least one scorer")
    made: list[Part] = []
    for index, part in enumerate(parts):
        try:
            scorer, weight = _make_part(part, weights=weights)
        except UsageError as error:
            raise UsageError(f"parts[{index}]: {error}") from None
        number = 1 + sum(other.scorer.name == scorer.name for other in made)
        prefix = f"{scorer.name}{number if number > 1 else ''}."
        made.append(Part(scorer, prefix, weight, {"name": scorer.name, **scorer.settings}))
    return tuple(made)


def _make_part(part: Any, *, weights: bool) -> tuple[Scorer, float]:
    from sftchat.scorers import make_scorer  # the package imports this module

    weight: Any = 1.0
    if weights and isinstance(part, tuple) and len(part) == 2:
        part, weight = part
    if isinstance(part, Mapping):
        arguments = dict(part)
        if not isinstance(name := arguments.pop("name", None), str):
            raise UsageError("needs the key 'name', the name of a scorer")
        if weights:
            weight = arguments.pop("weight", 1.0)
        part = make_scorer(name, arguments)
    if not isinstance(part, Scorer):
        raise UsageError(f"is {part!r:.60}, must be a scorer or an object with its name and arguments")
    if part.continuations is not None:
        raise UsageError(f"'{part.name}' scores likelihoods and cannot be combined with scorers of replies")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise UsageError(f"weight is {weight!r:.40}, must be a number above 0")
    return part, weight


def function(f: Callable[[Example, Reply], bool | float | Score], *, metrics: tuple[Metric, ...] = (), threshold: float = 1.0) -> Scorer:
    """Return the scorer of a Python function, which is not available by name.

    ``function(lambda example, reply: reply.text.count("!") <= 1)`` scores ``Hi!`` 1 and ``Hi!!`` 0 (``low_score``).

    Args:
        f: Takes an example and a reply; returns whether the reply is right, or a value from 0 to 1 (the metric ``score`` is their mean), or a
            ``Score``. With the annotation ``-> bool`` the metric is ``accuracy``, whose intervals are more exact.
        metrics: The metrics of the counts of a ``Score``, the primary one first; required when ``f`` returns one, and only then.
        threshold: Lowest value of a right reply.
    """
    is_bool = getattr(f, "__annotations__", {}).get("return") in (bool, "bool")
    key = "correct" if is_bool else "score"
    name = getattr(f, "__qualname__", type(f).__qualname__)

    def score(example: Example, reply: Reply) -> Score:
        result = f(example, reply)
        if isinstance(result, Score):
            if not metrics:
                raise TypeError(f"{name} returned a Score; give function() the metrics of its counts")
            return result
        if metrics or (is_bool and result not in (0, 1)):
            raise TypeError(f"{name} returned {short_repr(result)}, must return {'a Score' if metrics else 'True or False'}")
        try:
            value = to_number(result)
        except Malformed as error:
            raise TypeError(f"{name} returned {error}, must return True, False, a number from 0 to 1, or a Score") from None
        if not 0 <= value <= 1:
            raise TypeError(f"{name} returned {value:g}, must return a number from 0 to 1")
        return with_reply_errors(Score({"n": 1, key: value}, errors=() if value >= threshold else ("low_score",)), reply)

    mean = Metric("score", lambda sums: ratio(sums["score"], sums["n"]), f"mean of {name}", stats=("score", "n"))
    settings = {"function": f"{getattr(f, '__module__', '')}.{name}", "threshold": threshold}
    return Scorer("function", score, metrics or (ACCURACY if is_bool else mean,), settings=settings)
