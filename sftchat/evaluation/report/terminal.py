"""A report on the terminal: metrics with intervals, differences with p-values, slices, error classes, and changed items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sftchat.evaluation.report.view import (
    MAX_SLICES,
    Report,
    describe_disagreement,
    error_class_rows,
    error_classes,
    format_change,
    format_difference,
    format_difference_interval,
    format_interval,
    format_p_values,
    format_value,
    model_notes,
    slice_metrics,
)
from sftchat.evaluation.results import Comparison, Judgement, MetricDifference, ModelResult, Ranked
from sftchat.evaluation.scored import Item
from sftchat.text import pluralize, printable

MAX_EXAMPLES = 5
"""Maximum number of changed items shown of each kind; ``report.json`` lists all."""
MAX_LINES = 8
"""Maximum number of lines shown of one reply."""
COLOURS: Mapping[Judgement, str] = {"better": "green", "worse": "red", "no significant difference": "dim"}


def print_report(report: Report, console: Console) -> None:
    """Print a report."""
    for part in report_sections(report):
        console.print(part)
        console.print()


def report_sections(report: Report) -> Iterator[RenderableType]:
    """Yield the renderables of a report, one evalset after the other."""
    for task, evalset in dict.fromkeys((result.task, result.evalset) for result in report.results):
        results = [result for result in report.results if (result.task, result.evalset) == (task, evalset)]
        comparisons = [one for one in report.comparisons if (one.candidate.task, one.candidate.evalset) == (task, evalset)]
        first = results[0]
        asked = len(first.items) + len(first.failures)
        size = pluralize(asked, "item") if asked >= evalset.size else f"{asked} of {pluralize(evalset.size, 'item')}"
        yield Text.assemble((task or report.task, "bold"), f" on {evalset.name}, {size}")
        if len(results) > 1:
            ranking = next((found for found in report.rankings if found[0].result in results), ())
            yield _models_table(ranking, results)
        if comparisons:
            for comparison in comparisons:
                yield from _comparison_section(comparison)
        elif len(results) == 1:
            yield from _model_section(results[0])
        else:
            yield Text("\n").join(_notes_line(result) for result in results)


def _model_section(result: ModelResult) -> Iterator[RenderableType]:
    """Yield the section of one model without a comparison."""
    table = _empty_table("metric", ">value", "95 % interval")
    for metric in result.metrics:
        table.add_row(_safe_text(metric.name), format_value(metric.value), format_interval(metric.low, metric.high))
    yield _legend(model=result.model)
    yield table
    if names := slice_metrics(result)[:3]:
        table = _empty_table("group", ">gold", *(f">{name}" for name in names))
        for group in result.slices[:MAX_SLICES]:
            table.add_row(_safe_text(group.name), f"{group.support:g}", *(format_value(group.metrics.get(name)) for name in names))
        yield table
    if rows := error_class_rows(result):
        table = _empty_table("fault", ">count")
        for row in rows:
            table.add_row(_safe_text(row.name), str(row.count))
        yield table
    yield _notes_line(result)


def _models_table(ranking: Sequence[Ranked], results: Sequence[ModelResult]) -> RenderableType:
    """Return a table of several models, one row each, by step if they have one; the best and its ties are marked."""
    shown = [ranked.result for ranked in ranking] or results
    names = [metric.name for metric in shown[0].metrics]
    steps = any(ranked.step is not None for ranked in ranking)
    columns = ["model", *([">step"] if steps else []), *(f">{name}" for name in names[:1]), *(["95 % interval"] if names else [])]
    table = _empty_table(*columns, *([""] if ranking else []), *(f">{name}" for name in names[1:4]))
    for index, result in enumerate(shown):
        ranked = ranking[index] if ranking else None
        step = [f"{ranked.step:,}" if ranked and ranked.step is not None else ""] if steps else []
        first = (
            [format_value(result.metrics[0].value), format_interval(result.metrics[0].low, result.metrics[0].high)]
            if result.metrics
            else []
        )
        mark = [("best" if ranked.best else "as good" if ranked.tied else "")] if ranked else []
        table.add_row(_safe_text(result.model), *step, *first, *mark, *(format_value(metric.value) for metric in result.metrics[1:4]))
    if not ranking:
        return table
    words = f"as good: these {len(shown[0].items)} items cannot tell it from the best; the best looks better here than it is, because it was chosen here"
    return Group(table, Text(words, "dim"))


def _comparison_section(comparison: Comparison) -> Iterator[RenderableType]:
    """Yield the section of a model compared with the baseline."""
    old, new = comparison.baseline, comparison.candidate
    yield _legend(baseline=old.model, model=new.model)
    table = _empty_table("metric", ">baseline", ">model", ">difference", "95 % interval", ">p")
    for metric in comparison.metrics:
        table.add_row(_safe_text(metric.name), format_value(metric.baseline), format_value(metric.candidate), *_difference_cells(metric))
    yield table
    yield from (
        Text(f"{printable(metric.name)}: {words}", "dim") for metric in comparison.metrics if (words := describe_disagreement(metric))
    )
    yield from _slices_table(old, new)
    if rows := error_class_rows(new, comparison):
        table = _empty_table("fault", ">baseline", ">model", ">change")
        for row in rows:
            table.add_row(_safe_text(row.name), str(row.before), str(row.count), row.change)
        yield table
    kinds = {
        "newly broken": comparison.broken,
        "newly fixed": comparison.fixed,
        "other counts": comparison.score_changed,
        "changed alike": comparison.text_changed,
    }
    for title, pairs in kinds.items():
        yield from _changed_items_table(title, pairs)
    told = ", ".join(f"{len(pairs)} {title}" for title, pairs in kinds.items() if pairs or title.startswith("newly"))
    yield Text(f"{told}; {comparison.differing} of {comparison.n} replies differ")
    yield Text("\n").join((_notes_line(old), _notes_line(new)))


def _difference_cells(metric: MetricDifference) -> tuple[Text, Text, str]:
    """Return the difference, with ``~`` before it when it is not significant, the interval and the p-value."""
    colour = COLOURS[metric.judgement]
    return Text(format_difference(metric), colour), Text(format_difference_interval(metric), colour), format_p_values(metric)


def _slices_table(old: ModelResult, new: ModelResult) -> Iterator[RenderableType]:
    """Yield a table of the slices of both models, by the first metric that can be computed per slice."""
    befores = {group.name: group for group in old.slices}
    names = slice_metrics(new)
    if not names:
        return
    table = _empty_table(f"group ({names[0]})", ">gold", ">baseline", ">model", ">change")
    for group in new.slices[:MAX_SLICES]:
        after = group.metrics.get(names[0])
        before = befores[group.name].metrics.get(names[0]) if group.name in befores else None
        change = "" if before is None or after is None else format_change(after - before)
        table.add_row(_safe_text(group.name), f"{group.support:g}", format_value(before), format_value(after), change)
    yield table


def _changed_items_table(title: str, pairs: Sequence[tuple[Item, Item]]) -> Iterator[RenderableType]:
    """Yield a few items with their gold reply and both models' replies."""
    if not pairs:
        return
    table = _empty_table(title, "gold", "baseline", "model")
    table.leading = 1
    table.columns[0].max_width = 16
    for old, new in pairs[:MAX_EXAMPLES]:
        gold = new.example.gold or ""
        table.add_row(_safe_text(new.example.id, "dim"), _first_lines(gold.split("\n")), _reply_cell(old, gold), _reply_cell(new, gold))
    yield table
    if len(pairs) > MAX_EXAMPLES:
        yield Text(f"… {len(pairs) - MAX_EXAMPLES} more {title}, all in the report (-o DIR)", "dim")


def _reply_cell(item: Item, gold: str) -> Text:
    """Return a reply with its error classes; lines that are not in the gold reply are red."""
    right = {line.strip() for line in gold.split("\n")}
    reply = item.reply.text.strip() or "(empty)"
    shown = _first_lines(reply.split("\n"), lambda line: "green" if line.strip() in right else "red")
    classes = ", ".join(error_classes(item))
    return Text.assemble(shown, "\n", _safe_text(f"({classes})", "dim")) if classes else shown


def _first_lines(lines: Sequence[str], style: Callable[[str], str] = lambda line: "") -> Text:
    """Return the first lines of a text, each in its style."""
    shown = Text("\n").join(_safe_text(line, style(line)) for line in lines[:MAX_LINES])
    return shown if len(lines) <= MAX_LINES else Text.assemble(shown, (f"\n… {len(lines) - MAX_LINES} more lines", "dim"))


def _safe_text(text: str, style: str = "") -> Text:
    """Return text of a model or a plugin, without markup and without control characters."""
    return Text(printable(text), style)


def _empty_table(*headers: str) -> Table:
    """Return a table without borders; a column whose header begins with ``>`` is right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for header in headers:
        name = header.removeprefix(">")
        table.add_column(name, justify="right" if header.startswith(">") else "left", no_wrap=header.startswith(">"), overflow="fold")
    return table


def _legend(**names: str) -> Text:
    """Return the legend of the models."""
    wide = max(map(len, names))
    return Text("\n".join(f"{role:<{wide}}  {name}" for role, name in names.items()), "dim")


def _notes_line(result: ModelResult) -> Text:
    """Return the line of notes on one model: its errors, tokens, cached replies and time."""
    entries, tokens = model_notes(result), result.items.totals.completion_tokens
    if tokens:
        entries.append(f"{tokens:,} tokens")
    if result.cached:
        entries.append(f"{result.cached} of {len(result.items) + len(result.failures)} replies cached")
    if result.seconds is not None:
        speed = f" ({tokens / result.seconds:,.0f}/s)" if tokens and result.seconds > 0 else ""
        entries.append(f"{result.seconds:.1f} s{speed}")
    return Text(f"{result.model}: {', '.join(entries)}", "dim")
