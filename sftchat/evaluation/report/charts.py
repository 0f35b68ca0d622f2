"""Charts as inline SVG, without a library; colours by class, because a strict Content-Security-Policy forbids style attributes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WHISKER = 240
"""Width of a dot with its whiskers, in pixels."""
HEIGHT = 220
"""Height of a curve, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 44, 20, 20, 34
"""Margins of a curve for its labels, in pixels."""


@dataclass(frozen=True)
class Point:
    """A point of a curve.

    Attributes:
        step: Training step.
        value: Value of the metric.
        low: Lower bound of its interval; None without one.
        high: Upper bound; None with ``low``.
    """

    step: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """The checkpoints of one run, in step order.

    Attributes:
        name: Name of the run.
        points: At least one point.
    """

    name: str
    points: tuple[Point, ...]


def domain(values: Iterable[float | None]) -> tuple[float, float]:
    """Return the range of an axis: 0 to 1 for shares, else from the minimum to the maximum."""
    known = [value for value in values if value is not None]
    if all(0 <= value <= 1 for value in known):
        return 0.0, 1.0
    low, high = min(known), max(known)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def whisker(points: Sequence[tuple[str, float | None, float | None, float | None]], axis: tuple[float, float]) -> Markup:
    """Draw dots with their intervals on one axis.

    Args:
        points: Class, value, lower and upper bound of each; None when unknown.
        axis: Range from ``domain``.
    """
    low, high = axis

    def x(value: float) -> str:
        return f"{6 + (WHISKER - 12) * (min(max(value, low), high) - low) / (high - low):.1f}"

    height = 8 * len(points) + 6
    parts = [f'<svg class="whisker" width="{WHISKER}" height="{height}" aria-hidden="true">']
    parts.append(f'<path class="axis" d="M6 0V{height}M{WHISKER / 2:g} 0V{height}M{WHISKER - 6} 0V{height}"/>')
    for row, (name, value, least, most) in enumerate(points):
        y = 7 + 8 * row
        if least is not None and most is not None:
            parts.append(f'<path class="{name}" d="M{x(least)} {y}H{x(most)}"/>')
        if value is not None:
            parts.append(f'<circle class="{name}" cx="{x(value)}" cy="{y}" r="3.5"/>')
    return Markup("".join([*parts, "</svg>"]))


def bar(value: float, before: float | None, most: float) -> Markup:
    """Draw a bar, with a mark at the baseline's value.

    Args:
        value: Length of the bar.
        before: Value of the baseline; None or 0 for no mark.
        most: Length of a full bar, above 0.
    """
    mark = "" if not before else f'<rect class="before" x="{min(99.2, 100 * before / most):.2f}" y="-1" width="0.8" height="10"/>'
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="8"/>'
        f'<rect class="filled" width="{100 * value / most:.2f}" height="8"/>{mark}</svg>'
    )


def curve(series: Sequence[Series], baseline: float | None, width: int, title: str) -> Markup:
    """Draw a metric over training steps, with the intervals as bands and the baseline as a dashed line.

    Args:
        series: One per run; there are four colours.
        baseline: Value of the baseline; None without one.
        width: Width in pixels; text is not scaled, so each width is drawn separately.
        title: Accessible title for screen readers.
    """
    points = [point for one in series for point in one.points]
    values = [value for point in points for value in (point.value, point.low, point.high) if value is not None]
    low, high = _padded([*values, *([] if baseline is None else [baseline])])
    first, last = min(point.step for point in points), max(point.step for point in points)

    def x(step: int) -> float:
        return LEFT + (width - LEFT - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [
        f'<svg class="curve" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" role="img">',
        Markup("<title>{}</title>").format(title),
    ]
    for tick in ticks(low, high):
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{width - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for step in _thinned(sorted({point.step for point in points}), max(2, (width - LEFT - RIGHT) // 72)):
        parts.append(f'<text class="tick" x="{x(step):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{step:,}</text>')
    if baseline is not None:
        parts.append(f'<path class="baseline" d="M{LEFT} {y(baseline):.1f}H{width - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{width - RIGHT}" y="{y(baseline) - 6:.1f}" text-anchor="end">baseline {baseline:.3f}</text>')
    best = max(points, key=lambda point: point.value)
    for number, one in enumerate(series):
        parts.append(f'<g class="series-{number % 4}">')
        known = [point for point in one.points if point.low is not None and point.high is not None]
        if len(known) > 1:
            there = "L".join(f"{x(point.step):.1f} {y(point.high or 0):.1f}" for point in known)
            back = "L".join(f"{x(point.step):.1f} {y(point.low or 0):.1f}" for point in reversed(known))
            parts.append(f'<path class="band" d="M{there}L{back}Z"/>')
        parts.append(f'<path class="line" d="M{"L".join(f"{x(point.step):.1f} {y(point.value):.1f}" for point in one.points)}"/>')
        for point in one.points:
            bounds = "" if point.low is None or point.high is None else f" [{point.low:.3f}, {point.high:.3f}]"
            told = Markup("<title>{}</title>").format(f"{one.name}, step {point.step:,}: {point.value:.3f}{bounds}")
            parts.append(f'<circle cx="{x(point.step):.1f}" cy="{y(point.value):.1f}" r="{4.5 if point is best else 3}">{told}</circle>')
        parts.append("</g>")
    at = "end" if x(best.step) > width - 60 else "start" if x(best.step) < LEFT + 30 else "middle"
    parts.append(f'<text class="best" x="{x(best.step):.1f}" y="{y(best.value) - 10:.1f}" text-anchor="{at}">{best.value:.3f}</text>')
    return Markup("".join([*parts, "</svg>"]))


def ticks(low: float, high: float) -> list[float]:
    """Return two to seven round numbers between two bounds."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(index * step, 10) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """Return a range around values; for shares within 0 and 1."""
    low, high = min(values), max(values)
    room = max((high - low) * 0.12, 0.02)
    return (max(0.0, low - room), min(1.0, high + room)) if low >= 0 and high <= 1 else (low - room, high + room)


def _thinned(steps: Sequence[int], most: int) -> list[int]:
    """Return evenly spaced steps, including the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return sorted({steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)})
