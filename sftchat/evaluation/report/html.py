"""A report as one self-contained HTML page: no network, no fonts, no libraries; works as a mail attachment or a CI artifact.

``page/`` has the template, the style and the script. Numbers are static HTML; items are embedded as JSON and rendered one page at a time, so that
thousands stay fast. The Content-Security-Policy allows only the page's own style and script, by their hashes.
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

from sftchat.evaluation.comparison import Comparison
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report import Report
from sftchat.evaluation.report.charts import Point, Series, bar, curve, domain, whisker
from sftchat.evaluation.report.view import (
    Change,
    ItemHistory,
    bounds,
    change_counts,
    comparison_of,
    difference,
    difference_bounds,
    disagreement,
    faults,
    item_histories,
    number,
    p_values,
    said,
    signed,
)
from sftchat.evaluation.results import ModelResult
from sftchat.text import sanitize_json, sanitize_lines
from sftchat.types import Message

if TYPE_CHECKING:
    from jinja2 import Template

ITEMS = 20_000
"""Maximum number of items in a page; right ones are left out first. ``replies.jsonl`` has all."""
CURVES = {"wide": 1056, "narrow": 328}
"""Widths of curves, in pixels; the style shows the one that fits."""
Place = tuple[str, EvalsetIdentity]
"""Task and evalset."""
PAGE = Path(__file__).parent / "page"

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Shown:
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
        Shown(place, result, comparison_of(report, result), change_counts(items))
        for place, (result, items) in enumerate(zip(report.results, found, strict=True))
    ]
    evalsets = list(dict.fromkeys(map(_place, report.results)))
    payload, left_out = _payload(report, evalsets, found)
    style = (PAGE / "report.css").read_text(encoding="utf-8")
    script = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("difference.js", "report.js"))
    page = _template().render(
        report=report,
        verdict=verdict,
        evalsets=[(place, [one for one in shown if _place(one.result) == place]) for place in evalsets],
        several_tasks=len({result.task for result in report.results}) > 1,
        curves={place: _curves(report, place) for place in evalsets},
        style=style,
        script=script,
        policy=_policy(style, script),
        payload=payload,
        left_out=left_out,
    )
    return sanitize_lines(page)  # on the whole page, so that no field is missed; the items are escaped already


@cache
def _template() -> Template:
    """Compile the page template once."""
    import jinja2

    loader = jinja2.FileSystemLoader(PAGE)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    functions = (number, bounds, difference, difference_bounds, disagreement, p_values, signed, metric_rows, group_rows, fault_rows)
    environment.globals |= {function.__name__: function for function in functions}
    return environment.get_template("report.html.jinja")


def metric_rows(shown: Shown) -> list[dict[str, Any]]:
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
        axis = domain(value for _, *values in points for value in values)
        rows.append({"metric": metric, "old": old, "difference": differences.get(metric.name), "picture": whisker(points, axis)})
    return rows


def group_rows(shown: Shown) -> tuple[str, list[dict[str, Any]]]:
    """Return the name of the first metric that can be computed per slice, and a row per slice; empty when there is none."""
    name = next((m.name for m in shown.result.metrics if any(m.name in group.metrics for group in shown.result.groups)), "")
    groups = [group for group in shown.result.groups if name in group.metrics]
    olds = {} if shown.comparison is None else {group.name: group.metrics.get(name) for group in shown.comparison.baseline.groups}
    most = max([1.0, *(group.metrics[name] for group in groups), *(old for old in olds.values() if old is not None)])
    return name, [
        {
            "group": group,
            "value": group.metrics[name],
            "old": olds.get(group.name),
            "bar": bar(group.metrics[name], olds.get(group.name), most),
        }
        for group in groups
    ]


def fault_rows(shown: Shown) -> list[dict[str, Any]]:
    """Return a row per error class, the most frequent first, with the baseline's counts if there is one."""
    new = shown.result.errors
    old = None if shown.comparison is None else shown.comparison.baseline.errors
    names = sorted({*new, *(old or {})}, key=lambda name: (-max(new.get(name, 0), (old or {}).get(name, 0)), name))
    most = max([1, *new.values(), *(old or {}).values()])
    rows = []
    for name in names:
        before = None if old is None else old.get(name, 0)
        count = new.get(name, 0)
        rows.append({"name": name, "count": count, "old": before, "bar": bar(count, before, most)})
    return rows


def _place(result: ModelResult) -> Place:
    """Return the task and evalset of a result."""
    return result.task, result.evalset


def _curves(report: Report, where: Place) -> dict[str, Any]:
    """Return the primary metric over training steps, drawn at every width, and the runs; empty with fewer than two steps."""
    runs: dict[str, list[Point]] = {}
    name = ""
    for result in report.results:
        path = PurePosixPath(result.model.replace("\\", "/"))
        step = _CHECKPOINT.fullmatch(path.name)
        if _place(result) == where and step and result.metrics:
            first = result.metrics[0]
            name = first.name
            runs.setdefault(str(path.parent), []).append(Point(int(step[1]), first.value, first.low, first.high))
    if sum(map(len, runs.values())) < 2:
        return {}
    series = [Series(run, tuple(sorted(points, key=lambda point: point.step))) for run, points in runs.items()]
    base = next((result.metric(name).value for result in report.baselines if _place(result) == where and result.metrics), None)
    drawings = {size: curve(series, base, width, f"{name} over training steps") for size, width in CURVES.items()}
    return {"runs": list(runs), "drawings": drawings}


def _payload(report: Report, evalsets: Sequence[Place], found: Sequence[Sequence[ItemHistory]]) -> tuple[str, int]:
    """Return the items as JSON for a script element, and how many were left out."""
    room = ITEMS // max(1, len(found))
    sets: list[list[list[Any]]] = [[] for _ in evalsets]
    places: list[dict[str, int]] = [{} for _ in evalsets]
    results = []
    for result, items in zip(report.results, found, strict=True):
        which = evalsets.index(_place(result))
        comparison = comparison_of(report, result)
        rows = []
        for item in items[:room]:  # right items are last
            example = item.example
            if example.id not in places[which]:
                places[which][example.id] = len(sets[which])
                old = None if item.old is None else [said(item.old), faults(item.old)]
                sets[which].append([example.id, _prompt(example.messages), example.gold or "", old])
            rows.append([places[which][example.id], item.change, said(item.new), faults(item.new), int(item.differs)])
        baseline = None if comparison is None else comparison.baseline.model
        results.append({"model": result.model, "baseline": baseline, "name": result.evalset.name, "evalset": which, "rows": rows})
    document = sanitize_json(json.dumps({"evalsets": sets, "results": results}, ensure_ascii=False, separators=(",", ":")))
    left_out = sum(max(0, len(items) - room) for items in found)
    # a "<" could end the script element or begin a comment in it: https://html.spec.whatwg.org/#restrictions-for-contents-of-script-elements
    return document.replace("<", "\\u003c"), left_out


def _prompt(messages: Sequence[Message]) -> str:
    """Return the prompt: the only message, or the conversation with its roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy: only the page's own style and script, by their hashes (https://www.w3.org/TR/CSP3/)."""

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return f"default-src 'none'; style-src {source(style)}; script-src {source(script)}; img-src data:; base-uri 'none'; form-action 'none'"
