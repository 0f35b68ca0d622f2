"""Charts of the HTML page as inline SVG, coloured by class: dots with intervals, bars, and curves over training steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sftchat.evaluation.report.view import format_interval

INTERVALS_WIDTH = 240
"""Width of the picture of a metric's intervals, in pixels."""
CURVE_HEIGHT = 220
"""Height of the chart of checkpoints, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 44, 20, 20, 34
"""Margins of that chart for its labels, in pixels."""


@dataclass(frozen=True)
class Point:
    """A checkpoint in the chart.

    Attributes:
        step: Training step.
        value: Value of the metric.
        low: Lower bound of the interval; None without an interval.
        high: Upper bound; None with ``low``.
    """

    step: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """The checkpoints of one run, at least one, in step order."""

    name: str
    points: tuple[Point, ...]


def axis_range(values: Iterable[float | None]) -> tuple[float, float]:
    """Return the range of an axis: 0 to 1 for values in that range, else from the minimum to the maximum; at least one value is not None."""
    numbers = [value for value in values if value is not None]
    if all(0 <= number <= 1 for number in numbers):
        return 0.0, 1.0
    low, high = min(numbers), max(numbers)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def draw_intervals(points: Sequence[tuple[str, float, float | None, float | None]]) -> Markup:
    """Draw dots with their intervals, one below the other on one axis.

    Args:
        points: CSS class, value, and lower and upper bound of each dot; the bounds are None without an interval.
    """
    low, high = axis_range(number for _, *numbers in points for number in numbers)

    def x(value: float) -> str:
        return f"{6 + (INTERVALS_WIDTH - 12) * (min(max(value, low), high) - low) / (high - low):.1f}"

    height = 8 * len(points) + 6
    parts = [f'<svg class="whisker" width="{INTERVALS_WIDTH}" height="{height}" aria-hidden="true">']
    parts.append(f'<path class="axis" d="M6 0V{height}M{INTERVALS_WIDTH / 2:g} 0V{height}M{INTERVALS_WIDTH - 6} 0V{height}"/>')
    for row, (css_class, value, lower, upper) in enumerate(points):
        y = 7 + 8 * row
        if lower is not None and upper is not None:
            parts.append(f'<path class="{css_class}" d="M{x(lower)} {y}H{x(upper)}"/>')
        parts.append(f'<circle class="{css_class}" cx="{x(value)}" cy="{y}" r="3.5"/>')
    return Markup("".join([*parts, "</svg>"]))


def draw_bar(value: float, before: float | None, full_value: float) -> Markup:
    """Draw a bar, with a mark at the baseline's value.

    Args:
        value: Value that the bar's length shows.
        before: Value of the baseline; None or 0 for no mark.
        full_value: Value of a bar of full length, above 0.
    """
    mark = "" if not before else f'<rect class="before" x="{min(99.2, 100 * before / full_value):.2f}" y="-1" width="0.8" height="10"/>'
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="8"/>'
        f'<rect class="filled" width="{100 * value / full_value:.2f}" height="8"/>{mark}</svg>'
    )


def draw_curves(series: Sequence[Series], baseline: float | None, width: int, title: str, *, higher_is_better: bool = True) -> Markup:
    """Draw a metric over training steps, with the intervals as bands and the baseline as a dashed line.

    Args:
        series: One per run; four colours are used in turn.
        baseline: Value of the baseline; None without one.
        width: Width in pixels; text is not scaled, so each width is drawn separately.
        title: Accessible title for screen readers.
        higher_is_better: Whether the best checkpoint, which is marked, has the largest value.
    """
    points = [point for run in series for point in run.points]
    values = [baseline, *(value for point in points for value in (point.value, point.low, point.high))]
    low, high = _padded_range([value for value in values if value is not None])
    first, last = min(point.step for point in points), max(point.step for point in points)

    def x(step: int) -> float:
        return LEFT + (width - LEFT - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return TOP + (CURVE_HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [
        f'<svg class="curve" viewBox="0 0 {width} {CURVE_HEIGHT}" width="{width}" height="{CURVE_HEIGHT}" role="img">',
        Markup("<title>{}</title>").format(title),
    ]
    for tick in axis_ticks(low, high):
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{width - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for step in _evenly_spaced(sorted({point.step for point in points}), max(2, (width - LEFT - RIGHT) // 72)):
        parts.append(f'<text class="tick" x="{x(step):.1f}" y="{CURVE_HEIGHT - 12}" text-anchor="middle">{step:,}</text>')
    if baseline is not None:
        parts.append(f'<path class="baseline" d="M{LEFT} {y(baseline):.1f}H{width - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{width - RIGHT}" y="{y(baseline) - 6:.1f}" text-anchor="end">baseline {baseline:.3f}</text>')
    best = (max if higher_is_better else min)(points, key=lambda point: point.value)
    for index, run in enumerate(series):
        parts.append(f'<g class="series-{index % 4}">')
        intervals = [(point.step, point.low, point.high) for point in run.points if point.low is not None and point.high is not None]
        if len(intervals) > 1:
            upper_edge = "L".join(f"{x(step):.1f} {y(upper):.1f}" for step, _, upper in intervals)
            lower_edge = "L".join(f"{x(step):.1f} {y(lower):.1f}" for step, lower, _ in reversed(intervals))
            parts.append(f'<path class="band" d="M{upper_edge}L{lower_edge}Z"/>')
        parts.append(f'<path class="line" d="M{"L".join(f"{x(point.step):.1f} {y(point.value):.1f}" for point in run.points)}"/>')
        for point in run.points:
            interval = format_interval(point.low, point.high)
            tooltip = Markup("<title>{}</title>").format(f"{run.name}, step {point.step:,}: {point.value:.3f} {interval}".rstrip())
            parts.append(f'<circle cx="{x(point.step):.1f}" cy="{y(point.value):.1f}" r="{4.5 if point is best else 3}">{tooltip}</circle>')
        parts.append("</g>")
    anchor = "middle"
    if x(best.step) > width - 60:
        anchor = "end"
    elif x(best.step) < LEFT + 30:
        anchor = "start"
    parts.append(f'<text class="best" x="{x(best.step):.1f}" y="{y(best.value) - 10:.1f}" text-anchor="{anchor}">{best.value:.3f}</text>')
    return Markup("".join([*parts, "</svg>"]))


def axis_ticks(low: float, high: float) -> list[float]:
    """Return two to seven round numbers between two bounds."""
    smallest_step = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(smallest_step))
    # the constants below absorb rounding errors
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= smallest_step * 0.999)
    return [round(index * step, 10) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _padded_range(values: Sequence[float]) -> tuple[float, float]:
    """Return a range around values; it does not exceed 0 and 1 when the values do not."""
    low, high = min(values), max(values)
    padding = max((high - low) * 0.12, 0.02)
    if low >= 0 and high <= 1:
        return max(0.0, low - padding), min(1.0, high + padding)
    return low - padding, high + padding


def _evenly_spaced(steps: Sequence[int], limit: int) -> list[int]:
    """Return at most ``limit`` of the steps, evenly spaced, including the first and the last."""
    if len(steps) <= limit:
        return list(steps)
    return sorted({steps[round(index * (len(steps) - 1) / (limit - 1))] for index in range(limit)})
