"""A report as GitHub-flavoured Markdown: metrics, verdict and changed items, within the size limit of its destination.

Replies are untrusted text: they are placed in ``<code>``, where GitHub links no @user, #1 or :emoji:, and all Markdown or HTML syntax in them is
written as character references. Chinese characters are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from sftchat.evaluation.gate import Verdict, VerdictOutcome
from sftchat.evaluation.replies import ESCAPE_SURROGATES
from sftchat.evaluation.report.view import (
    GROUPS,
    Report,
    bounds,
    comparison_of,
    difference,
    difference_bounds,
    disagreement,
    error_class_rows,
    error_classes,
    model_notes,
    number,
    p_values,
    slice_metrics,
)
from sftchat.evaluation.results import Comparison, ModelResult
from sftchat.evaluation.scored import Item
from sftchat.text import sanitize_lines

SUMMARY_BYTES = 1024 * 1024
"""Maximum size of a step summary; GitHub shows nothing of a longer one
(https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands#step-isolation-and-limits).
"""
COMMENT_BYTES = 65_536
"""Maximum size of a GitHub comment; the limit is in characters, of which there are never more than bytes."""

CHARACTERS = 400
"""Maximum number of characters shown of one reply."""
CUT = "*The rest does not fit here; it is in the other files of the report.*\n"

Pair = tuple[Item, Item]
"""The baseline's item and the candidate's."""

_SPECIAL = re.compile(r"[&<>|\\`*~\[$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=\bwww)\.")
_SIGNS: dict[VerdictOutcome, str] = {"pass": "✅", "fail": "❌", "inconclusive": "🟡"}


def to_markdown(report: Report, verdict: Verdict, limit: int = COMMENT_BYTES) -> str:
    """Return the report as Markdown.

    Metrics come first, then newly broken items, then newly fixed ones; items that do not fit are counted instead.

    Args:
        report: Measurements.
        verdict: Verdict on them.
        limit: Maximum size in bytes of UTF-8: ``COMMENT_BYTES``, ``SUMMARY_BYTES`` or less.
    """
    blocks = [f"## sftchat eval: {escaped(report.task)}"]
    if verdict.headline:
        blocks.append(f"{_SIGNS.get(verdict.outcome, '⚠️')} **{escaped(verdict.headline)}**")
    if verdict.reasons:
        blocks.append("\n".join(f"- {code(reason)}" for reason in verdict.reasons))
    several = len({result.task for result in report.results}) > 1
    for task, evalset in dict.fromkeys((result.task, result.evalset) for result in report.results):
        results = [result for result in report.results if (result.task, result.evalset) == (task, evalset)]
        blocks.append(f"### {f'{escaped(task)} on ' if several else ''}{escaped(evalset.name)}")
        if len(results) > 1:
            blocks.append(_overview(results))
        for result in results:
            comparison = comparison_of(report, result)
            blocks.extend(_compared(comparison) if comparison else _single(result) if len(results) == 1 else ())
    text, bytes_left = "", limit - _size(CUT)
    for block in blocks:
        if _size(block) + 2 > bytes_left:
            return text + CUT
        text, bytes_left = f"{text}{block}\n\n", bytes_left - _size(block) - 2
    for title, items in _item_tables(report):
        table = _fitting(title, items, bytes_left)
        if not table:
            return text + CUT
        text, bytes_left = text + table, bytes_left - _size(table)
    return text.rstrip("\n") + "\n"


def escaped(text: str) -> str:
    """Return text on one line, with all Markdown and HTML syntax escaped."""
    shown = sanitize_lines(text.replace("\r\n", "\n").strip("\n"), allowed="")
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", shown).replace("\n", "<br>")


def code(text: str) -> str:
    """Return untrusted text in ``<code>``, truncated."""
    return f"<code>{escaped(text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + '…')}</code>" if text.strip() else "*(empty)*"


def _single(result: ModelResult) -> Iterator[str]:
    """Yield the section of one model without a comparison."""
    yield f"{code(result.model)}: {_notes_line(result)}"
    rows = [(escaped(metric.name), number(metric.value), bounds(metric.low, metric.high)) for metric in result.metrics]
    yield _table(("metric", ">value", "95 % interval"), rows)
    yield from _folded("faults", ("fault", ">count"), [(escaped(row.name), str(row.count)) for row in error_class_rows(result)])


def _overview(results: Sequence[ModelResult]) -> str:
    """Return a table of several models, one row each."""
    names = [metric.name for metric in results[0].metrics][:4]
    rows = []
    for result in results:
        values = {metric.name: metric for metric in result.metrics}
        first = values.get(names[0]) if names else None
        cells = [number(values[name].value) if name in values else "" for name in names]
        rows.append((code(result.model), *cells, bounds(first.low, first.high) if first else ""))
    return _table(("model", *(f">{escaped(name)}" for name in names), f"95 % interval of {escaped(names[0])}" if names else ""), rows)


def _compared(comparison: Comparison) -> Iterator[str]:
    """Yield the section of a model compared with the baseline."""
    old, new = comparison.baseline, comparison.candidate
    broken, fixed = len(comparison.broken), len(comparison.fixed)
    counts = f"{broken} newly broken, {fixed} newly fixed, {comparison.differing} of {comparison.n} replies differ"
    yield f"{code(new.model)} beside {code(old.model)}: **{counts}**; {_notes_line(new)}"
    rows = [
        (escaped(m.name), number(m.baseline), number(m.candidate), difference(m), difference_bounds(m), p_values(m))
        for m in comparison.metrics
    ]
    yield _table(("metric", ">baseline", ">model", ">difference", "95 % interval", ">p"), rows)
    unsure = [f"- {escaped(metric.name)}: {escaped(words)}" for metric in comparison.metrics if (words := disagreement(metric))]
    if unsure:
        yield "\n".join(unsure)
    befores = {group.name: group.metrics for group in old.slices}
    for name in slice_metrics(new)[:1]:
        groups = [
            (escaped(group.name), f"{group.support:g}", number(befores.get(group.name, {}).get(name)), number(group.metrics.get(name)))
            for group in new.slices[:GROUPS]
        ]
        yield from _folded(f"{escaped(name)} by group", ("group", ">gold", ">baseline", ">model"), groups)
    faulty = [(escaped(row.name), str(row.before), str(row.count), row.change) for row in error_class_rows(new, comparison)]
    yield from _folded("faults", ("fault", ">baseline", ">model", ">change"), faulty)


def _notes_line(result: ModelResult) -> str:
    """Join the notes on a model; the number of unanswered items is bold."""
    *entries, last = model_notes(result)
    return ", ".join([*entries, f"**{last}**" if result.failures else last])


def _item_tables(report: Report) -> Iterator[tuple[str, Sequence[Pair]]]:
    """Yield the tables of newly broken items of every comparison, then of newly fixed ones: a title, and pairs that may be cut at the end."""
    kinds = [("broken", comparison, comparison.broken) for comparison in report.comparisons]
    kinds += [("fixed", comparison, comparison.fixed) for comparison in report.comparisons]
    for change, comparison, pairs in kinds:
        if pairs:
            candidate = comparison.candidate
            where = f": {code(candidate.model)} on {code(candidate.evalset.name)}" if len(report.comparisons) > 1 else ""
            yield f"newly {change}{where} ({len(pairs)})", pairs


def _item(pair: Pair) -> str:
    """Return one row of an item table, with the error classes of either reply."""
    old, new = pair
    cells = (code(new.example.id), code(new.example.gold or ""), code(old.reply.text), code(new.reply.text))
    return f"| {' | '.join(cells)} | {escaped(', '.join(error_classes(new) or error_classes(old)))} |\n"


def _fitting(title: str, items: Sequence[Pair], bytes_left: int) -> str:
    """Return a foldable table with as many items as fit into ``bytes_left`` bytes, and the number of the others; empty when none fits."""
    head = f"<details><summary>{title}</summary>\n\n| item | gold | baseline | model | faults |\n|---|---|---|---|---|\n"
    rest, end = "\n{} more in the other files of the report\n", "\n</details>\n\n"
    left = bytes_left - _size(head) - _size(rest.format(len(items))) - _size(end)
    rows: list[str] = []
    for row in map(_item, items):
        left -= _size(row)
        if left < 0:
            break
        rows.append(row)
    if not rows:
        return ""
    return head + "".join(rows) + (rest.format(len(items) - len(rows)) if len(rows) < len(items) else "") + end


def _folded(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a foldable table; nothing when it has no rows."""
    if rows:
        yield f"<details><summary>{title}</summary>\n\n{_table(headers, rows)}\n\n</details>"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a column whose header begins with ``>`` is right-aligned."""
    rule = "".join("---:|" if header.startswith(">") else "---|" for header in headers)
    lines = [f"| {' | '.join(header.removeprefix('>') for header in headers)} |", f"|{rule}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _size(text: str) -> int:
    """Return the size of a text in bytes, as written to a file."""
    return len(text.encode("utf-8", ESCAPE_SURROGATES))
