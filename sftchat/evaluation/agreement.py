"""Agreement of a judge with people who rated the same items, beside the agreement of the people with each other.

With several people, every statistic is the mean over the pairs of judge and person, weighted by the number of items that both rated, and the
people's agreement is the same mean over pairs of people. So the two can be compared: people's agreement is the most that can be expected of a judge.

All statistics are computed from weights of the items, of which a bootstrap resample has one set, for all resamples at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from sftchat.evaluation.ratings import Ratings, Value
from sftchat.evaluation.scored import Ints
from sftchat.evaluation.statistics import Array, central_interval, wilson_interval

RESAMPLES = 2_000
MAX_DRAWN_WEIGHTS = 2_000_000
"""Maximum number of weights that are held at once, so that resampling needs some tens of megabytes of memory only."""
FEW_ITEMS = 10
"""With fewer items no statistic is advice."""
RELIABLE, TENTATIVE = 0.8, 0.667
"""Krippendorff's (2004) customary limits of alpha: reliable from the first, tentative conclusions from the second."""
MAX_UNDEFINED = 0.05
"""Maximum share of resamples in which a statistic may be undefined; with more it gets no interval."""

NAMES = {
    "agreement": "equal ratings",
    "kappa": "Cohen's κ",
    "kappa_linear": "κ, linear weights",
    "kappa_quadratic": "κ, quadratic weights",
    "alpha": "Krippendorff's α",
    "spearman": "Spearman's ρ",
    "kendall": "Kendall's τ-b",
    "bias": "judge minus person",
}
"""Statistics with their printed names; ``agreement``, ``kappa`` and ``alpha`` are computed on every scale."""


@dataclass(frozen=True)
class Statistic:
    """One statistic with its 95 % interval over the choice of items.

    Attributes:
        name: A key of ``NAMES``.
        value: Its value; None when undefined, such as κ when all ratings are equal.
        low: Lower bound: Wilson's for ``agreement``, bootstrap percentile for the others; None when the spread cannot be estimated.
        high: Upper bound; None with ``low``.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Agreement:
    """Agreement of a judge with people.

    Attributes:
        judge: Name of the judge.
        people: Names of the people.
        scale: Scale of the ratings.
        items: Number of items with a rating of the judge and of a person.
        unused: Number of other items.
        with_people: Statistics of judge and people.
        among_people: The same statistics of the people with each other, without ``bias``; empty when no item was rated by two people.
        categories: The possible ratings, in order.
        confusion: Number of ratings by person's rating (row) and judge's rating (column), summed over the people; both in the order of ``categories``.
    """

    judge: str
    people: tuple[str, ...]
    scale: str
    items: int
    unused: int
    with_people: tuple[Statistic, ...]
    among_people: tuple[Statistic, ...]
    categories: tuple[Value, ...]
    confusion: tuple[tuple[int, ...], ...]

    @property
    def alpha(self) -> Statistic:
        """Krippendorff's alpha of judge and people, which decides the advice."""
        return next(statistic for statistic in self.with_people if statistic.name == "alpha")

    @property
    def ceiling(self) -> Statistic | None:
        """Krippendorff's alpha of the people; None when no item was rated by two people."""
        return next((statistic for statistic in self.among_people if statistic.name == "alpha"), None)

    @property
    def advice(self) -> str:
        """One sentence on what the judge can be used for."""
        if self.items < FEW_ITEMS:
            return f"{self.items} items are too few to say anything about this judge: rate at least 50."
        value, low, ceiling = self.alpha.value, self.alpha.low, self.ceiling.value if self.ceiling is not None else None
        if value is None:
            return "All ratings are equal, so agreement beyond chance cannot be measured: rate items of different quality."
        if ceiling is not None and ceiling < TENTATIVE:
            people = f"The people themselves agree too little (α {ceiling:.2f})"
            return f"{people}, so no judge can be checked with these ratings: state the criteria more exactly and rate again."
        known = value if low is None else low
        if known >= RELIABLE:
            return "The judge can stand in for these people: even the lower bound of α reaches 0.8."
        if known >= TENTATIVE:
            return "The judge is good enough for tentative conclusions (lower bound of α from 0.667 to 0.8): trust large differences only."
        if value >= TENTATIVE:
            return f"The judge may be good enough, but {self.items} items do not show it (α could be {known:.2f}): rate more items."
        return "Do not decide with this judge (α below 0.667): change the rubric or the judge, and check again."

    def as_json(self) -> dict[str, Any]:
        """The agreement as printed with ``--json`` and as stored with ``--save``."""
        return asdict(self) | {"advice": self.advice}


def measure_agreement(ratings: Ratings, *, seed: int = 0, resamples: int = RESAMPLES) -> Agreement:
    """Compare a judge's ratings with people's.

    Args:
        ratings: The ratings.
        seed: Seed of the resampling; the same seed gives the same intervals.
        resamples: Number of resamples.
    """
    people, judge = ratings.people, ratings.judge
    used = [item for item in ratings.by_item.values() if len(item) > 1]
    compared = sum(judge in item for item in used)
    index_of = {category: index for index, category in enumerate(ratings.categories)}
    codes = np.array([[index_of[item[name]] if name in item else -1 for name in (judge, *people)] for item in used], dtype=np.int64)
    scale = _Scale(ratings.scale, _positions(ratings))
    judge_pairs = [codes[:, [0, column]] for column in range(1, codes.shape[1])]
    people_pairs = [codes[:, list(pair)] for pair in combinations(range(1, codes.shape[1]), 2)]
    names = [name for name in NAMES if name not in ("kappa_linear", "kappa_quadratic", "spearman", "kendall", "bias")]
    if ratings.scale != "nominal":
        names = [name for name in NAMES if name != "bias"]
    confusion = np.zeros((len(index_of), len(index_of)), dtype=np.int64)
    for pair in judge_pairs:
        both = pair[(pair >= 0).all(axis=1)]
        np.add.at(confusion, (both[:, 1], both[:, 0]), 1)
    bias = ["bias"] if ratings.is_numeric and ratings.scale != "nominal" else []
    return Agreement(
        judge=judge,
        people=people,
        scale=ratings.scale,
        items=compared,
        unused=len(ratings.by_item) - compared,
        with_people=_statistics([*names, *bias], judge_pairs, scale, seed, resamples),
        among_people=_statistics(names, people_pairs, scale, seed, resamples) if any(map(_count_both, people_pairs)) else (),
        categories=ratings.categories,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


@dataclass(frozen=True)
class _Scale:
    """A scale and, for each category, its number: the value of a numeric rating, or the position in the order."""

    name: str
    numbers: Array


def _positions(ratings: Ratings) -> Array:
    if ratings.is_numeric:
        return np.array([float(value) for value in ratings.categories])
    return np.arange(len(ratings.categories), dtype=np.float64)


def _count_both(pair: Ints) -> int:
    return int((pair >= 0).all(axis=1).sum())


def _statistics(names: Sequence[str], pairs: Sequence[Ints], scale: _Scale, seed: int, resamples: int) -> tuple[Statistic, ...]:
    pairs = [pair for pair in pairs if _count_both(pair)]
    n = len(pairs[0])
    point = {name: values[0] for name, values in _mean_over_pairs(names, pairs, scale, np.ones((1, n))).items()}
    drawn: dict[str, list[Array]] = {name: [] for name in names}
    for weights in _draw_weights(n, seed, resamples):
        for name, values in _mean_over_pairs(names, pairs, scale, weights).items():
            drawn[name].append(values)
    rated = int(np.any([(pair >= 0).all(axis=1) for pair in pairs], axis=0).sum())
    return tuple(_with_interval(name, float(point[name]), np.concatenate(drawn[name]), rated) for name in names)


def _with_interval(name: str, value: float, drawn: Array, rated: int) -> Statistic:
    if np.isnan(value):
        return Statistic(name, None)
    if name == "agreement":
        interval = wilson_interval(value, rated)
        return Statistic(name, value, interval.low, interval.high)
    defined = drawn[~np.isnan(drawn)]
    if len(defined) < (1 - MAX_UNDEFINED) * len(drawn) or np.ptp(defined) <= 1e-12:
        return Statistic(name, value)
    return Statistic(name, value, *central_interval(defined))


def _draw_weights(n: int, seed: int, resamples: int) -> Iterator[Array]:
    """Yield how often each item occurs in each resample, some resamples at a time; their number at a time does not change the result."""
    generator, size = np.random.default_rng(seed), max(1, MAX_DRAWN_WEIGHTS // n)
    for start in range(0, resamples, size):
        yield generator.multinomial(n, np.full(n, 1 / n), min(size, resamples - start)).astype(np.float64)


def _mean_over_pairs(names: Sequence[str], pairs: Sequence[Ints], scale: _Scale, weights: Array) -> dict[str, Array]:
    """Return each statistic, for each row of ``weights``: the mean over pairs of raters, NaN where no pair defines it."""
    sums = {name: np.zeros(len(weights)) for name in names}
    totals = {name: np.zeros(len(weights)) for name in names}
    for pair in pairs:
        both = (pair >= 0).all(axis=1)
        first, second = pair[both].T
        pair_weights = weights[:, both]
        counts = pair_weights.sum(axis=1)
        for name in names:
            values = _of_pair(name, first, second, scale, pair_weights)
            defined = ~np.isnan(values)
            sums[name][defined] += (values * counts)[defined]
            totals[name][defined] += counts[defined]
    return {name: _divide(sums[name], totals[name]) for name in names}


def _of_pair(name: str, first: Ints, second: Ints, scale: _Scale, weights: Array) -> Array:
    numbers = scale.numbers
    if name == "agreement":
        return _divide((weights * (first == second)).sum(axis=1), weights.sum(axis=1))
    if name == "bias":
        return _divide((weights * (numbers[first] - numbers[second])).sum(axis=1), weights.sum(axis=1))
    if name == "alpha":
        return krippendorff_alpha(np.stack((first, second), axis=1), scale.name, numbers, weights)
    if name == "spearman":
        return spearman(first, second, len(numbers), weights)
    if name == "kendall":
        return kendall(first, second, len(numbers), weights)
    # weights of ordinal ratings are distances of positions, those of interval ratings distances of values
    places = numbers if scale.name == "interval" else np.arange(len(numbers), dtype=np.float64)
    return cohen_kappa(first, second, places, weights, power={"kappa": 0, "kappa_linear": 1, "kappa_quadratic": 2}[name])


def _divide(numerator: Array, denominator: Array) -> Array:
    """Divide; NaN where the denominator is 0, up to rounding."""
    tiny = np.abs(denominator) < 1e-12
    result: Array = np.where(tiny, np.nan, numerator / np.where(tiny, 1.0, denominator))
    return result


def _marginals(codes: Ints, size: int, weights: Array) -> Array:
    """Return how often each category occurs, in shape (resamples, categories)."""
    return weights @ np.eye(size)[codes]


def cohen_kappa(first: Ints, second: Ints, places: Array, weights: Array, *, power: int = 0) -> Array:
    """Return Cohen's kappa (1960) of two raters, weighted (Cohen 1968) when ``power`` is not 0.

    Kappa is 1 minus the observed disagreement divided by the one expected of independent raters with the same frequencies.

    Args:
        first: Category index of each item by the first rater.
        second: The same of the second rater.
        places: Place of each category; a weighted disagreement is the distance of two places to the power of ``power``.
        weights: Weights of the items, in shape (resamples, items).
        power: 0 without weights, 1 for linear, 2 for quadratic weights.

    Returns:
        One value per resample; NaN when the expected disagreement is 0.
    """
    differences = np.abs(places[:, None] - places[None, :])
    costs = (differences > 0).astype(np.float64) if power == 0 else differences**power
    observed = weights @ costs[first, second]
    one, other = _marginals(first, len(places), weights), _marginals(second, len(places), weights)
    expected = ((one @ costs) * other).sum(axis=1)
    return 1 - _divide(observed * weights.sum(axis=1), expected)


def krippendorff_alpha(codes: Ints, scale: str, numbers: Array, weights: Array) -> Array:
    """Return Krippendorff's alpha (2011, "Computing Krippendorff's alpha-reliability") of any number of raters.

    Ordinal differences are differences of mean ranks, so all three metrics are computed from sums of values and squares.

    Args:
        codes: Category index by item and rater; -1 for a missing rating. Items with fewer than two ratings have no influence.
        scale: ``nominal``, ``ordinal`` or ``interval``.
        numbers: Value of each category, read for ``interval`` only.
        weights: Weights of the items, in shape (resamples, items).

    Returns:
        One value per resample; NaN when all ratings are equal.
    """
    rated = codes >= 0
    paired = rated.sum(axis=1) > 1
    codes, rated, weights = codes[paired], rated[paired], weights[:, paired]
    raters = rated.sum(axis=1)
    # number of ratings of each category by item
    counts = (np.eye(len(numbers))[codes] * rated[:, :, None]).sum(axis=1)
    totals = weights @ counts
    n = totals.sum(axis=1)
    if scale == "nominal":
        within = weights @ ((raters**2 - (counts**2).sum(axis=1)) / (raters - 1))
        between = n**2 - (totals**2).sum(axis=1)
        return 1 - _divide((n - 1) * within, between)
    values = np.cumsum(totals, axis=1) - totals / 2 if scale == "ordinal" else np.broadcast_to(numbers, totals.shape)
    means = (totals * values).sum(axis=1) / np.maximum(n, 1)
    values = values - means[:, None]  # small numbers, so that squares lose no digits
    sums, squares = values @ counts.T, values**2 @ counts.T
    within = (weights * 2 * (raters * squares - sums**2) / (raters - 1)).sum(axis=1)
    between = 2 * n * (totals * values**2).sum(axis=1)
    return 1 - _divide((n - 1) * within, between)


def spearman(first: Ints, second: Ints, size: int, weights: Array) -> Array:
    """Return Spearman's rank correlation (1904), with mean ranks of ties; arguments as for ``kendall``."""
    ranks = []
    for codes in (first, second):
        totals = _marginals(codes, size, weights)
        ranks.append((np.cumsum(totals, axis=1) - totals / 2)[:, codes])
    n = weights.sum(axis=1, keepdims=True)
    one, other = (rank - (weights * rank).sum(axis=1, keepdims=True) / np.maximum(n, 1) for rank in ranks)
    covariance = (weights * one * other).sum(axis=1)
    return _divide(covariance, np.sqrt((weights * one**2).sum(axis=1) * (weights * other**2).sum(axis=1)))


def kendall(first: Ints, second: Ints, size: int, weights: Array) -> Array:
    """Return Kendall's rank correlation tau-b (1945), which corrects for ties.

    Args:
        first: Category index of each item by the first rater.
        second: The same of the second rater.
        size: Number of categories.
        weights: Weights of the items, in shape (resamples, items).

    Returns:
        One value per resample; NaN when all ratings of one rater are equal.
    """
    # items with equal ratings are one cell of the table, whose weight is the sum of theirs
    cells, cell_of = np.unique(first * size + second, return_inverse=True)
    cell_weights = np.stack([np.bincount(cell_of, row, len(cells)) for row in weights])
    one, other = np.divmod(cells, size)
    concordance = np.zeros(len(weights))
    block = max(1, MAX_DRAWN_WEIGHTS // len(cells))
    for start in range(0, len(cells), block):
        part = slice(start, start + block)
        signs = np.sign(one[part, None] - one[None, :]) * np.sign(other[part, None] - other[None, :])
        concordance += ((cell_weights @ signs.T.astype(np.float64)) * cell_weights[:, part]).sum(axis=1) / 2
    n = weights.sum(axis=1)
    pairs = n * (n - 1) / 2
    tied = [(totals * (totals - 1)).sum(axis=1) / 2 for totals in (_marginals(codes, size, weights) for codes in (first, second))]
    return _divide(concordance, np.sqrt((pairs - tied[0]) * (pairs - tied[1])))
