"""The gate: three verdicts on every gated metric of every comparison.

*Regressed*: the difference is judged ``worse`` (``MetricDifference.judgement``, by the p adjusted after Holm), and the drop is at least
``min_drop`` and more than a model was seen to differ from itself. *Inconclusive*: not regressed, but a drop larger than the margin cannot be
excluded at 5 %. *Fine*: the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import NormalDist

from sftchat.evaluation.comparison import LEVEL, Comparison, GateResult, MetricDifference, Outcome
from sftchat.evaluation.paired import FEWEST, POWER, holm
from sftchat.evaluation.rules import POINT, Gated

TOLERANCE = 1e-12
"""A drop this little short of a limit has reached it: 0.005 is not a binary fraction."""


Gating = Callable[[Comparison], Sequence[Gated]]
"""Which metrics of a comparison count."""


def gate(comparisons: Sequence[Comparison], gated: Gating) -> tuple[tuple[Comparison, ...], tuple[GateResult, ...]]:
    """Judge every gated metric of every comparison, p-values adjusted over all of them: the exit code is one decision.

    Args:
        comparisons: Those that share the decision.
        gated: Which metrics of a comparison count.

    Returns:
        The comparisons, their gated metrics with the adjusted p, on which their judgement rests; and the verdicts.
    """
    asked = [(place, rule) for place, comparison in enumerate(comparisons) if comparison.metrics for rule in gated(comparison)]
    adjusted = holm([comparisons[place].metric(rule.metric).p for place, rule in asked])
    found = {(place, rule.metric): p for (place, rule), p in zip(asked, adjusted, strict=True)}
    judged = tuple(
        replace(
            comparison,
            metrics=tuple(replace(metric, p_adjusted=found.get((place, metric.name))) for metric in comparison.metrics),
        )
        for place, comparison in enumerate(comparisons)
    )
    return judged, tuple(_result(place, judged[place], rule) for place, rule in asked)


def _result(place: int, comparison: Comparison, rule: Gated) -> GateResult:
    """One verdict with what it rests on."""
    candidate, difference = comparison.candidate, comparison.metric(rule.metric)
    checks = [result.self_check for result in (comparison.baseline, candidate) if result.self_check is not None]
    verdict = outcome(difference, rule, max((check.floors.get(difference.name, 0.0) for check in checks), default=0.0))
    needed = items_needed(difference, comparison.units, rule.margin) if verdict == "inconclusive" else None
    return GateResult(
        candidate.model,
        candidate.task,
        candidate.evalset.name,
        difference.name,
        verdict,
        difference.deciding_p,
        rule.margin,
        comparison.units,
        needed,
        place,
    )


def items_needed(difference: MetricDifference, n: int, margin: float) -> int | None:
    """How many items would settle it in four cases of five, if the difference and its spread stayed what they are.

    The standard error falls with the square root of the number of items; the answer is the smaller of what it would take to exclude a drop
    of ``margin`` and what it would take to make the drop seen significant, with the power that ``--plan`` reckons with.

    Args:
        difference: Between the models.
        n: Items, or clusters, that it was measured on.
        margin: In points of the metric, as everything the user sees.

    Returns:
        At least ``n + 1``; None where the items give no hint of the spread, and where more of them would not settle it: a drop beyond the
        margin that is significant as it is.
    """
    error, least = difference.standard_error, 0.0
    if difference.differing < FEWEST:
        bound = difference.smallest_gain  # hardly anything differs: by the share of items that still may
        room = margin * POINT + min(0.0, difference.gain)
        if bound is None:
            return None
        # where a drop beyond the margin was seen, it must become significant, which fewer changed items than FEWEST cannot
        least = n * ((min(0.0, difference.gain) - bound) / room if room > TOLERANCE else FEWEST / difference.differing)
    elif not error:
        return None
    power = NormalDist().inv_cdf(POWER)
    distances = [(NormalDist().inv_cdf(1 - LEVEL), margin * POINT + difference.gain)]
    if difference.judgement != "worse":
        distances.append((NormalDist().inv_cdf(1 - LEVEL / 2), -difference.gain))
    needed = [n * ((z + power) * (error or 0.0) / distance) ** 2 for z, distance in distances if distance > TOLERANCE]
    return max(n + 1, math.ceil(max(least, min(needed)))) if needed else None


def outcome(difference: MetricDifference, rule: Gated, floor: float = 0.0) -> Outcome:
    """The verdict on one metric.

    Args:
        difference: Between the models, with the adjusted p where several metrics are gated together.
        rule: Margin and smallest drop, in points.
        floor: How far one of the models was seen to differ from itself when asked again; no drop up to that is a regression.
    """
    drop = -difference.gain
    if difference.judgement == "worse" and drop >= rule.min_drop * POINT - TOLERANCE and drop > floor + TOLERANCE:
        return "regressed"
    if difference.differing == 0:
        return "fine"  # the same counts on every item are no hint of a drop, however few the items are
    bound = difference.smallest_gain
    return "inconclusive" if bound is None or bound < -rule.margin * POINT - TOLERANCE else "fine"
