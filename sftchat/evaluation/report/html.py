"""A report as one self-contained HTML page: no network, no fonts, no libraries; works as a mail attachment or a CI artifact.

``page/`` has the template, the style and the script. Numbers are static HTML; items are embedded as JSON and rendered one page at a time, so that
thousands stay fast. The Content-Security-Policy allows only the page's own style and script, by their hashes; so charts are inline SVG that is
coloured by class.
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
"""Width of a dot with its whiskers, in pixels."""
CURVE_HEIGHT = 220
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


def axis_range(values: Iterable[float | None]) -> tuple[float, float]:
    """Return the range of an axis: 0 to 1 for shares, else from the minimum to the maximum."""
    known = [value for value in values if value is not None]
    if all(0 <= value <= 1 for value in known):
        return 0.0, 1.0
    low, high = min(known), max(known)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def draw_intervals(points: Sequence[tuple[str, float | None, float | None, float | None]], axis: tuple[float, float]) -> Markup:
    """Draw dots with their intervals on one axis.

    Args:
        points: Class, value, lower and upper bound of each; None when unknown.
        axis: Range from ``axis_range``.
    """
    low, high = axis

    def x(value: float) -> str:
        return f"{6 + (INTERVALS_WIDTH - 12) * (min(max(value, low), high) - low) / (high - low):.1f}"

    height = 8 * len(points) + 6
    parts = [f'<svg class="whisker" width="{INTERVALS_WIDTH}" height="{height}" aria-hidden="true">']
    parts.append(f'<path class="axis" d="M6 0V{height}M{INTERVALS_WIDTH / 2:g} 0V{height}M{INTERVALS_WIDTH - 6} 0V{height}"/>')
    for row, (name, value, least, most) in enumerate(points):
        y = 7 + 8 * row
        if least is not None and most is not None:
            parts.append(f'<path class="{name}" d="M{x(least)} {y}H{x(most)}"/>')
        if value is not None:
            parts.append(f'<circle class="{name}" cx="{x(value)}" cy="{y}" r="3.5"/>')
    return Markup("".join([*parts, "</svg>"]))


def draw_bar(value: float, before: float | None, most: float) -> Markup:
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


def draw_curves(series: Sequence[Series], baseline: float | None, width: int, title: str) -> Markup:
    """Draw a metric over training steps, with the intervals as bands and the baseline as a dashed line.

    Args:
        series: One per run; there are four colours.
        baseline: Value of the baseline; None without one.
        width: Width in pixels; text is not scaled, so each width is drawn separately.
        title: Accessible title for screen readers.
    """
    points = [point for one in series for point in one.points]
    values = [value for point in points for value in (point.value, point.low, point.high) if value is not None]
    low, high = _padded_range([*values, *([] if baseline is None else [baseline])])
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
    best = max(points, key=lambda point: point.value)
    for index, one in enumerate(series):
        parts.append(f'<g class="series-{index % 4}">')
        known = [point for point in one.points if point.low is not None and point.high is not None]
        if len(known) > 1:
            there = "L".join(f"{x(point.step):.1f} {y(point.high or 0):.1f}" for point in known)
            back = "L".join(f"{x(point.step):.1f} {y(point.low or 0):.1f}" for point in reversed(known))
            parts.append(f'<path class="band" d="M{there}L{back}Z"/>')
        parts.append(f'<path class="line" d="M{"L".join(f"{x(point.step):.1f} {y(point.value):.1f}" for point in one.points)}"/>')
        for point in one.points:
            interval = "" if point.low is None or point.high is None else f" [{point.low:.3f}, {point.high:.3f}]"
            tooltip = Markup("<title>{}</title>").format(f"{one.name}, step {point.step:,}: {point.value:.3f}{interval}")
            parts.append(f'<circle cx="{x(point.step):.1f}" cy="{y(point.value):.1f}" r="{4.5 if point is best else 3}">{tooltip}</circle>')
        parts.append("</g>")
    anchor = "end" if x(best.step) > width - 60 else "start" if x(best.step) < LEFT + 30 else "middle"
    parts.append(f'<text class="best" x="{x(best.step):.1f}" y="{y(best.value) - 10:.1f}" text-anchor="{anchor}">{best.value:.3f}</text>')
    return Markup("".join([*parts, "</svg>"]))


def axis_ticks(low: float, high: float) -> list[float]:
    """Return two to seven round numbers between two bounds."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(index * step, 10) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _padded_range(values: Sequence[float]) -> tuple[float, float]:
    """Return a range around values; for shares within 0 and 1."""
    low, high = min(values), max(values)
    padding = max((high - low) * 0.12, 0.02)
    return (max(0.0, low - padding), min(1.0, high + padding)) if low >= 0 and high <= 1 else (low - padding, high + padding)


def _evenly_spaced(steps: Sequence[int], most: int) -> list[int]:
    """Return evenly spaced steps, including the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return sorted({steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)})


MAX_ITEMS = 20_000
"""Maximum number of items in a page; right ones are left out first. ``replies.jsonl`` has all."""
CURVE_WIDTHS = {"wide": 1056, "narrow": 328}
"""Widths of curves, in pixels; the style shows the one that fits."""
TaskAndEvalset = tuple[str, EvalsetIdentity]
"""Task and evalset."""
PAGE_FOLDER = Path(__file__).parent / "page"

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class ResultView:
    """One result on the page.

    Attributes:
        number: Index in the report.
        result: The result.
        comparison: Comparison with the baseline, if there is one.
        counts: Number of items per kind of change.
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
    found = [item_histories(result, comparison_of(report, result)) for result in report.results]
    shown = [
        ResultView(place, result, comparison_of(report, result), count_changes(items))
        for place, (result, items) in enumerate(zip(report.results, found, strict=True))
    ]
    evalsets = list(dict.fromkeys(map(_task_and_evalset, report.results)))
    payload, left_out = _items_json(report, evalsets, found)
    style = (PAGE_FOLDER / "report.css").read_text(encoding="utf-8")
    script = "".join((PAGE_FOLDER / name).read_text(encoding="utf-8") for name in ("difference.js", "report.js"))
    page = _template().render(
        report=report,
        verdict=verdict,
        evalsets=[(place, [one for one in shown if _task_and_evalset(one.result) == place]) for place in evalsets],
        several_tasks=len({result.task for result in report.results}) > 1,
        curves={place: _draw_checkpoints(report, place) for place in evalsets},
        style=style,
        script=script,
        policy=_security_policy(style, script),
        payload=payload,
        left_out=left_out,
    )
    return sanitize_lines(page)  # on the whole page, so that no field is missed; the items are escaped already


@cache
def _template() -> Template:
    """Compile the page template once."""
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


def metric_rows(shown: ResultView) -> list[dict[str, Any]]:
    """Return a row per metric, with its chart and, if there is a baseline, its difference."""
    comparison = shown.comparison
    olds = {} if comparison is None else {metric.name: metric for metric in comparison.baseline.metrics}
    differences = {} if comparison is None else {metric.name: metric for metric in comparison.metrics}
    rows = []
    for metric in shown.result.metrics:
        old = olds.get(metric.name)
        points = [("model", metric.value, metric.low, metric.high)]
        if old is not None:
            points.insert(0, ("baseline", old.value, old.low, old.high))
        axis = axis_range(value for _, *values in points for value in values)
        rows.append({"metric": metric, "old": old, "difference": differences.get(metric.name), "picture": draw_intervals(points, axis)})
    return rows


def slice_rows(shown: ResultView) -> tuple[str, list[dict[str, Any]]]:
    """Return the name of the first metric that can be computed per slice, and a row per slice; empty when there is none."""
    name = next(iter(slice_metrics(shown.result)), "")
    groups = [group for group in shown.result.slices if name in group.metrics]
    olds = {} if shown.comparison is None else {group.name: group.metrics.get(name) for group in shown.comparison.baseline.slices}
    most = max([1.0, *(group.metrics[name] for group in groups), *(old for old in olds.values() if old is not None)])
    return name, [
        {
            "group": group,
            "value": group.metrics[name],
            "old": olds.get(group.name),
            "bar": draw_bar(group.metrics[name], olds.get(group.name), most),
        }
        for group in groups
    ]


def error_class_bars(shown: ResultView) -> list[dict[str, Any]]:
    """Return a row per error class, the most frequent first, with the baseline's counts if there is one."""
    rows = error_class_rows(shown.result, shown.comparison)
    most = max([1, *(max(row.count, row.before or 0) for row in rows)])
    return [{"name": row.name, "count": row.count, "old": row.before, "bar": draw_bar(row.count, row.before, most)} for row in rows]


def _task_and_evalset(result: ModelResult) -> TaskAndEvalset:
    """Return the task and evalset of a result."""
    return result.task, result.evalset


def _draw_checkpoints(report: Report, where: TaskAndEvalset) -> dict[str, Any]:
    """Return the primary metric over training steps, drawn at every width, and the runs; empty with fewer than two steps."""
    runs: dict[str, list[Point]] = {}
    name = ""
    for result in report.results:
        path = PurePosixPath(result.model.replace("\\", "/"))
        step = _CHECKPOINT.fullmatch(path.name)
        if _task_and_evalset(result) == where and step and result.metrics:
            first = result.metrics[0]
            name = first.name
            runs.setdefault(str(path.parent), []).append(Point(int(step[1]), first.value, first.low, first.high))
    if sum(map(len, runs.values())) < 2:
        return {}
    series = [Series(run, tuple(sorted(points, key=lambda point: point.step))) for run, points in runs.items()]
    base = next((result.metric(name).value for result in report.baselines if _task_and_evalset(result) == where and result.metrics), None)
    drawings = {size: draw_curves(series, base, width, f"{name} over training steps") for size, width in CURVE_WIDTHS.items()}
    return {"runs": list(runs), "drawings": drawings}


def _items_json(report: Report, evalsets: Sequence[TaskAndEvalset], found: Sequence[Sequence[ItemHistory]]) -> tuple[str, int]:
    """Return the items as JSON for a script element, and how many were left out."""
    items_per_report = MAX_ITEMS // max(1, len(found))
    sets: list[list[list[Any]]] = [[] for _ in evalsets]
    row_numbers: list[dict[str, int]] = [{} for _ in evalsets]
    results = []
    for result, items in zip(report.results, found, strict=True):
        evalset_index = evalsets.index(_task_and_evalset(result))
        comparison = comparison_of(report, result)
        rows = []
        for item in items[:items_per_report]:  # right items are last
            example = item.example
            if example.id not in row_numbers[evalset_index]:
                row_numbers[evalset_index][example.id] = len(sets[evalset_index])
                old = None if item.old is None else [reply_text(item.old), error_classes(item.old)]
                sets[evalset_index].append([example.id, _prompt_text(example.messages), example.gold or "", old])
            rows.append(
                [row_numbers[evalset_index][example.id], item.change, reply_text(item.new), error_classes(item.new), int(item.differs)]
            )
        baseline = None if comparison is None else comparison.baseline.model
        results.append({"model": result.model, "baseline": baseline, "name": result.evalset.name, "evalset": evalset_index, "rows": rows})
    document = sanitize_json(json.dumps({"evalsets": sets, "results": results}, ensure_ascii=False, separators=(",", ":")))
    left_out = sum(max(0, len(items) - items_per_report) for items in found)
    # a "<" could end the script element or begin a comment in it: https://html.spec.whatwg.org/#restrictions-for-contents-of-script-elements
    return document.replace("<", "\\u003c"), left_out


def _prompt_text(messages: Sequence[Message]) -> str:
    """Return the prompt: the only message, or the conversation with its roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _security_policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy: only the page's own style and script, by their hashes (https://www.w3.org/TR/CSP3/)."""

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return f"default-src 'none'; style-src {source(style)}; script-src {source(script)}; img-src data:; base-uri 'none'; form-action 'none'"
