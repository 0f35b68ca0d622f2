"""A report as one self-contained HTML page: no network, no fonts, no libraries; works as a mail attachment or a CI artifact.

``page/`` has the template, the style and the script. Numbers are static HTML; items are embedded as JSON, and the script shows 25 at a time, so that
thousands of items stay fast. The Content-Security-Policy allows only the page's own style and script, by their hashes. A ``style`` attribute is
therefore not possible, and the charts are inline SVG that is coloured by class.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report.view import (
    Change,
    ItemHistory,
    Report,
    comparison_of,
    count_changes,
    describe_disagreement,
    error_class_rows,
    error_classes,
    format_change,
    format_difference,
    format_difference_interval,
    format_interval,
    format_p_values,
    format_value,
    item_histories,
    reply_text,
    slice_metrics,
)
from sftchat.evaluation.results import Comparison, ModelResult
from sftchat.text import sanitize_json, sanitize_lines
from sftchat.types import Message

if TYPE_CHECKING:
    from jinja2 import Template

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


MAX_ITEMS = 20_000
"""Maximum number of items in a page; right ones are left out first."""
CURVE_WIDTHS = {"wide": 1056, "narrow": 328}
"""Widths in which the chart of checkpoints is drawn, in pixels; the style shows the one that fits."""
TaskAndEvalset = tuple[str, EvalsetIdentity]
PAGE_FOLDER = Path(__file__).parent / "page"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class ResultView:
    """One result as the template needs it.

    Attributes:
        number: Index of the result in the report.
        result: The result.
        comparison: Comparison with the baseline; None without a baseline.
        counts: Number of items by change.
    """

    number: int
    result: ModelResult
    comparison: Comparison | None
    counts: Mapping[Change, int]


def to_html(report: Report, verdict: Verdict) -> str:
    """Return the report as an HTML page; the same inputs give the same bytes.

    Args:
        report: Measurements.
        verdict: Verdict on them.
    """
    views, histories_by_result = [], []
    for number, result in enumerate(report.results):
        comparison = comparison_of(report, result)
        histories = item_histories(result, comparison)
        histories_by_result.append(histories)
        views.append(ResultView(number, result, comparison, count_changes(histories)))
    evalsets = list(dict.fromkeys(map(_task_and_evalset, report.results)))
    payload, left_out = _items_json(report, evalsets, histories_by_result)
    style = (PAGE_FOLDER / "report.css").read_text(encoding="utf-8")
    script = "".join((PAGE_FOLDER / name).read_text(encoding="utf-8") for name in ("difference.js", "report.js"))
    page = _template().render(
        report=report,
        verdict=verdict,
        evalsets=[(evalset, [view for view in views if _task_and_evalset(view.result) == evalset]) for evalset in evalsets],
        several_tasks=len({result.task for result in report.results}) > 1,
        curves={evalset: _draw_checkpoints(report, evalset) for evalset in evalsets},
        style=style,
        script=script,
        policy=_security_policy(style, script),
        payload=payload,
        left_out=left_out,
    )
    return sanitize_lines(page)  # the whole page, so that no field is missed


@cache
def _template() -> Template:
    import jinja2

    loader = jinja2.FileSystemLoader(PAGE_FOLDER)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    functions = (
        format_value,
        format_interval,
        format_difference,
        format_difference_interval,
        describe_disagreement,
        format_p_values,
        format_change,
        metric_rows,
        slice_rows,
        error_class_bars,
    )
    environment.globals |= {function.__name__: function for function in functions}
    return environment.get_template("report.html.jinja")


def metric_rows(view: ResultView) -> list[dict[str, Any]]:
    """Return a row per metric, with its chart and, if there is a baseline, its difference."""
    comparison = view.comparison
    old_values = {} if comparison is None else {metric.name: metric for metric in comparison.baseline.metrics}
    differences = {} if comparison is None else {metric.name: metric for metric in comparison.metrics}
    rows = []
    for metric in view.result.metrics:
        old = old_values.get(metric.name)
        points = [("model", metric.value, metric.low, metric.high)]
        if old is not None:
            points.insert(0, ("baseline", old.value, old.low, old.high))
        rows.append({"metric": metric, "old": old, "difference": differences.get(metric.name), "picture": draw_intervals(points)})
    return rows


def slice_rows(view: ResultView) -> tuple[str, list[dict[str, Any]]]:
    """Return the name of the first metric that slices have, and a row per slice; empty when there is no such metric."""
    name = next(iter(slice_metrics(view.result)), "")
    groups = [group for group in view.result.slices if name in group.metrics]
    old_values = {} if view.comparison is None else {group.name: group.metrics.get(name) for group in view.comparison.baseline.slices}
    full_value = max([1.0, *(group.metrics[name] for group in groups), *(old for old in old_values.values() if old is not None)])
    rows = []
    for group in groups:
        value, old = group.metrics[name], old_values.get(group.name)
        rows.append({"group": group, "value": value, "old": old, "bar": draw_bar(value, old, full_value)})
    return name, rows


def error_class_bars(view: ResultView) -> list[dict[str, Any]]:
    """Return a row per error class, the most frequent first, with the baseline's count; None without a baseline."""
    rows = error_class_rows(view.result, view.comparison)
    full_value = max([1, *(max(row.count, row.before or 0) for row in rows)])
    return [{"name": row.name, "count": row.count, "old": row.before, "bar": draw_bar(row.count, row.before, full_value)} for row in rows]


def _task_and_evalset(result: ModelResult) -> TaskAndEvalset:
    return result.task, result.evalset


def _draw_checkpoints(report: Report, evalset: TaskAndEvalset) -> dict[str, Any]:
    """Return the primary metric over training steps, drawn at every width, and the runs; empty with fewer than two checkpoints."""
    points_by_run: dict[str, list[Point]] = {}
    name = ""
    for result in report.results:
        path = PurePosixPath(result.model.replace("\\", "/"))
        step = _CHECKPOINT.fullmatch(path.name)
        if _task_and_evalset(result) == evalset and step and result.metrics:
            metric = result.metrics[0]
            name = metric.name
            points_by_run.setdefault(str(path.parent), []).append(Point(int(step[1]), metric.value, metric.low, metric.high))
    if sum(map(len, points_by_run.values())) < 2:
        return {}
    series = [Series(run, tuple(sorted(points, key=lambda point: point.step))) for run, points in points_by_run.items()]
    baselines = [result for result in report.baselines if _task_and_evalset(result) == evalset and result.metrics]
    baseline = baselines[0].metric(name).value if baselines else None
    differences = [ranked.difference for ranking in report.rankings for ranked in ranking if _task_and_evalset(ranked.result) == evalset]
    higher_is_better = all(difference.higher_is_better for difference in differences if difference is not None)
    drawings = {
        size: draw_curves(series, baseline, width, f"{name} over training steps", higher_is_better=higher_is_better)
        for size, width in CURVE_WIDTHS.items()
    }
    return {"runs": list(points_by_run), "drawings": drawings}


def _items_json(report: Report, evalsets: Sequence[TaskAndEvalset], histories_by_result: Sequence[list[ItemHistory]]) -> tuple[str, int]:
    """Return the items as JSON for a script element, and how many were left out.

    The examples of each evalset, with the baseline's replies, are stored once. A row of a result refers to its example by index.
    """
    items_per_result = MAX_ITEMS // max(1, len(histories_by_result))
    examples_by_evalset: list[list[list[Any]]] = [[] for _ in evalsets]
    indices_by_evalset: list[dict[str, int]] = [{} for _ in evalsets]
    results = []
    for result, histories in zip(report.results, histories_by_result, strict=True):
        evalset_index = evalsets.index(_task_and_evalset(result))
        examples, index_by_id = examples_by_evalset[evalset_index], indices_by_evalset[evalset_index]
        rows = []
        for history in histories[:items_per_result]:  # right items are last
            example = history.example
            if example.id not in index_by_id:
                index_by_id[example.id] = len(examples)
                old = None if history.old is None else [reply_text(history.old), error_classes(history.old)]
                examples.append([example.id, _prompt_text(example.messages), example.gold or "", old])
            rows.append(
                [index_by_id[example.id], history.change, reply_text(history.new), error_classes(history.new), int(history.differs)]
            )
        comparison = comparison_of(report, result)
        baseline = None if comparison is None else comparison.baseline.model
        results.append({"model": result.model, "baseline": baseline, "name": result.evalset.name, "evalset": evalset_index, "rows": rows})
    data = {"evalsets": examples_by_evalset, "results": results}
    document = sanitize_json(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    left_out = sum(max(0, len(histories) - items_per_result) for histories in histories_by_result)
    # a "<" could end the script element or begin a comment in it: https://html.spec.whatwg.org/#restrictions-for-contents-of-script-elements
    return document.replace("<", "\\u003c"), left_out


def _prompt_text(messages: Sequence[Message]) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _security_policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy: only the page's own style and script, by their hashes (https://www.w3.org/TR/CSP3/)."""

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return f"default-src 'none'; style-src {source(style)}; script-src {source(script)}; img-src data:; base-uri 'none'; form-action 'none'"
