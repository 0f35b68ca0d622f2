"""A report as one self-contained HTML page: no network, no fonts, no libraries; works as a mail attachment or a CI artifact.

``page/`` has the template, the style and the script. Numbers are static HTML; items are embedded as JSON, and the script shows 25 at a time, so that
thousands of items stay fast. The Content-Security-Policy allows only the page's own style and script, by their hashes. A ``style`` attribute is
therefore not possible, and the charts are inline SVG that is coloured by class.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report.charts import Point, Series, draw_bar, draw_curves, draw_intervals
from sftchat.evaluation.report.confusion import confusion_table
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
        confusion_table,
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
