"""A report as GitHub-flavoured Markdown: metrics, verdict and changed items, within the size limit of its destination.

Replies are untrusted text. They are placed in ``<code>``, where GitHub does not interpret @user, #1 or :emoji:, and all Markdown or HTML syntax in
them is written as character references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from sftchat.evaluation.gate import RuleOutcome, Verdict, VerdictOutcome
from sftchat.evaluation.gate_options import TierName
from sftchat.evaluation.replies import ESCAPE_SURROGATES
from sftchat.evaluation.report.confusion import TITLE, confusion_table
from sftchat.evaluation.report.view import (
    MAX_SLICES,
    Report,
    comparison_of,
    describe_disagreement,
    error_class_rows,
    error_classes,
    format_difference,
    format_difference_interval,
    format_interval,
    format_p_values,
    format_value,
    model_notes,
    slice_metrics,
)
from sftchat.evaluation.results import Comparison, ModelResult
from sftchat.evaluation.scored import Pair
from sftchat.text import sanitize_lines

SUMMARY_BYTES = 1024 * 1024
"""Maximum size of a step summary; GitHub does not show a larger one
(https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands#step-isolation-and-limits).
"""
COMMENT_BYTES = 65_536
"""Maximum size of a GitHub comment. GitHub's limit is in characters, of which a text never has more than bytes."""
MAX_REPLY_CHARACTERS = 400
"""Maximum number of characters shown of one reply."""
TRUNCATION_NOTE = "*The rest does not fit here; it is in the other files of the report.*\n"


# Markdown and HTML syntax; underscores next to a space or punctuation; the ``:`` of ``http://`` and the dot of ``www.``, which would become links
_SYNTAX = re.compile(r"[&<>|\\`*~\[$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=\bwww)\.")
_RULE_SIGNS: dict[tuple[RuleOutcome, TierName], str] = {
    ("met", "block"): "✅", ("met", "warn"): "✅", ("failed", "block"): "❌", ("failed", "warn"): "⚠️",
    ("inconclusive", "block"): "🟡", ("inconclusive", "warn"): "🟡",
}  # fmt: skip
_OUTCOME_SIGNS: dict[VerdictOutcome, str] = {"pass": "✅", "fail": "❌", "inconclusive": "🟡"}


def to_markdown(report: Report, verdict: Verdict, limit: int = COMMENT_BYTES) -> str:
    """Return the report as Markdown.

    Metrics come first, then newly broken items, then newly fixed ones. For items that do not fit, their number is given.

    Args:
        report: Measurements.
        verdict: Verdict on them.
        limit: Maximum size in bytes of UTF-8: ``COMMENT_BYTES``, ``SUMMARY_BYTES`` or less.
    """
    blocks = [f"## sftchat eval: {escape_markdown(report.task)}"]
    if verdict.headline:
        blocks.append(f"{_OUTCOME_SIGNS.get(verdict.outcome, '⚠️')} **{escape_markdown(verdict.headline)}**")
    if verdict.policy and verdict.rules:
        rows = [
            (rule.tier, f"{_RULE_SIGNS[rule.outcome, rule.tier]} {escape_markdown(rule.rule)}", format_code(rule.line))
            for rule in verdict.rules
        ]
        blocks.append(_format_table(("tier", "rule", "result"), rows))
    if verdict.remarks:
        blocks.append("\n".join(f"- {format_code(reason)}" for reason in verdict.remarks))
    several = len({result.task for result in report.results}) > 1
    for task, evalset in dict.fromkeys((result.task, result.evalset) for result in report.results):
        results = [result for result in report.results if (result.task, result.evalset) == (task, evalset)]
        blocks.append(f"### {f'{escape_markdown(task)} on ' if several else ''}{escape_markdown(evalset.name)}")
        if len(results) > 1:
            blocks.append(_models_table(results))
        for result in results:
            if comparison := comparison_of(report, result):
                blocks.extend(_comparison_section(comparison))
            elif len(results) == 1:
                blocks.extend(_model_section(result))
    text, bytes_left = "", limit - _byte_size(TRUNCATION_NOTE)
    for block in blocks:
        if _byte_size(block) + 2 > bytes_left:
            return text + TRUNCATION_NOTE
        text, bytes_left = f"{text}{block}\n\n", bytes_left - _byte_size(block) - 2
    for title, items in _item_tables(report):
        table = _fitting_table(title, items, bytes_left)
        if not table:
            return text + TRUNCATION_NOTE
        text, bytes_left = text + table, bytes_left - _byte_size(table)
    return text.rstrip("\n") + "\n"


def escape_markdown(text: str) -> str:
    """Return text on one line of Markdown, with all Markdown and HTML syntax escaped."""
    lines = sanitize_lines(text.replace("\r\n", "\n").strip("\n"), allowed="")
    return _SYNTAX.sub(lambda match: f"&#{ord(match[0])};", lines).replace("\n", "<br>")


def format_code(text: str) -> str:
    """Return untrusted text in ``<code>``, truncated to ``MAX_REPLY_CHARACTERS``."""
    if not text.strip():
        return "*(empty)*"
    shown = text if len(text) <= MAX_REPLY_CHARACTERS else text[: MAX_REPLY_CHARACTERS - 1] + "…"
    return f"<code>{escape_markdown(shown)}</code>"


def _model_section(result: ModelResult) -> Iterator[str]:
    """Yield the section of one model without a comparison."""
    yield f"{format_code(result.model)}: {_notes_line(result)}"
    rows = [
        (escape_markdown(metric.name), format_value(metric.value), format_interval(metric.low, metric.high)) for metric in result.metrics
    ]
    yield _format_table(("metric", ">value", "95 % interval"), rows)
    yield from _confusion_section(result)
    yield from _foldable_table(
        "faults", ("fault", ">count"), [(escape_markdown(row.name), str(row.count)) for row in error_class_rows(result)]
    )


def _models_table(results: Sequence[ModelResult]) -> str:
    names = [metric.name for metric in results[0].metrics][:4]
    rows = []
    for result in results:
        values = {metric.name: metric for metric in result.metrics}
        first = values.get(names[0]) if names else None
        cells = [format_value(values[name].value) if name in values else "" for name in names]
        rows.append((format_code(result.model), *cells, format_interval(first.low, first.high) if first else ""))
    return _format_table(
        ("model", *(f">{escape_markdown(name)}" for name in names), f"95 % interval of {escape_markdown(names[0])}" if names else ""), rows
    )


def _comparison_section(comparison: Comparison) -> Iterator[str]:
    """Yield the section of a model compared with the baseline."""
    old, new = comparison.baseline, comparison.candidate
    broken, fixed = len(comparison.broken), len(comparison.fixed)
    counts = f"{broken} newly broken, {fixed} newly fixed, {comparison.differing} of {comparison.n} replies differ"
    yield f"{format_code(new.model)} beside {format_code(old.model)}: **{counts}**; {_notes_line(new)}"
    rows = [
        (
            escape_markdown(m.name),
            format_value(m.baseline),
            format_value(m.candidate),
            format_difference(m),
            format_difference_interval(m),
            format_p_values(m),
        )
        for m in comparison.metrics
    ]
    yield _format_table(("metric", ">baseline", ">model", ">difference", "95 % interval", ">p"), rows)
    disagreements = {metric.name: describe_disagreement(metric) for metric in comparison.metrics}
    if any(disagreements.values()):
        yield "\n".join(f"- {escape_markdown(name)}: {escape_markdown(text)}" for name, text in disagreements.items() if text)
    befores = {group.name: group.metrics for group in old.slices}
    for name in slice_metrics(new)[:1]:
        groups = [
            (
                escape_markdown(group.name),
                f"{group.support:g}",
                format_value(befores.get(group.name, {}).get(name)),
                format_value(group.metrics.get(name)),
            )
            for group in new.slices[:MAX_SLICES]
        ]
        yield from _foldable_table(f"{escape_markdown(name)} by group", ("group", ">gold", ">baseline", ">model"), groups)
    yield from _confusion_section(new)
    faulty = [(escape_markdown(row.name), str(row.before), str(row.count), row.change) for row in error_class_rows(new, comparison)]
    yield from _foldable_table("faults", ("fault", ">baseline", ">model", ">change"), faulty)


def _confusion_section(result: ModelResult) -> Iterator[str]:
    """Yield the confusion table of a model, with right answers bold; nothing for a scorer without labels."""
    if table := confusion_table(result):
        rows = [
            (
                escape_markdown(row.label),
                *(f"**{cell.text}**" if cell.right else cell.text for cell in row.cells),
                format_value(row.precision),
                format_value(row.recall),
            )
            for row in table.rows
        ]
        title = f"confusion: {TITLE}" + (f" ({table.note})" if table.note else "")
        yield from _foldable_table(title, ("", *(f">{escape_markdown(name)}" for name in (*table.columns, "precision", "recall"))), rows)


def _notes_line(result: ModelResult) -> str:
    """Join the notes on a model; the number of unanswered items, which is the last note, is bold."""
    *notes, last = model_notes(result)
    return ", ".join([*notes, f"**{last}**" if result.failures else last])


def _item_tables(report: Report) -> Iterator[tuple[str, Sequence[Pair]]]:
    """Yield the title and the pairs of every table: newly broken items of all comparisons, then newly fixed ones."""
    tables = [("broken", comparison, comparison.broken) for comparison in report.comparisons]
    tables += [("fixed", comparison, comparison.fixed) for comparison in report.comparisons]
    for change, comparison, pairs in tables:
        if pairs:
            candidate = comparison.candidate
            where = f": {format_code(candidate.model)} on {format_code(candidate.evalset.name)}" if len(report.comparisons) > 1 else ""
            yield f"newly {change}{where} ({len(pairs)})", pairs


def _item_row(pair: Pair) -> str:
    """Return one row of an item table; its last cell has the error classes of the new reply, or of the old one when the new one has none."""
    old, new = pair
    cells = (format_code(new.example.id), format_code(new.example.gold or ""), format_code(old.shown), format_code(new.shown))
    return f"| {' | '.join(cells)} | {escape_markdown(', '.join(error_classes(new) or error_classes(old)))} |\n"


def _fitting_table(title: str, pairs: Sequence[Pair], bytes_left: int) -> str:
    """Return a foldable table with as many items as fit into ``bytes_left`` bytes, and the number of the others; empty when none fits."""
    head = f"<details><summary>{title}</summary>\n\n| item | gold | baseline | model | faults |\n|---|---|---|---|---|\n"
    more, end = "\n{} more in the other files of the report\n", "\n</details>\n\n"
    bytes_left -= _byte_size(head) + _byte_size(more.format(len(pairs))) + _byte_size(end)
    rows: list[str] = []
    for row in map(_item_row, pairs):
        bytes_left -= _byte_size(row)
        if bytes_left < 0:
            break
        rows.append(row)
    if not rows:
        return ""
    hidden = len(pairs) - len(rows)
    return head + "".join(rows) + (more.format(hidden) if hidden else "") + end


def _foldable_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a foldable table; nothing when it has no rows."""
    if rows:
        yield f"<details><summary>{title}</summary>\n\n{_format_table(headers, rows)}\n\n</details>"


def _format_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a column whose header begins with ``>`` is right-aligned."""
    alignments = "".join("---:|" if header.startswith(">") else "---|" for header in headers)
    lines = [f"| {' | '.join(header.removeprefix('>') for header in headers)} |", f"|{alignments}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _byte_size(text: str) -> int:
    return len(text.encode("utf-8", ESCAPE_SURROGATES))
