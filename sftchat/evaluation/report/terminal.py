"""A report on the terminal: metrics with intervals, differences with p-values, slices, error classes, and changed items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from sftchat.evaluation.confusion import Confusion, count_confusion
from sftchat.evaluation.report.confusion import MAX_LABELS, ConfusionCell, ConfusionTable, build_table
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
MAX_LABEL_WIDTH = 24
"""Maximum width of a gold label in a confusion table, in columns."""
COLOURS: Mapping[Judgement, str] = {"better": "green", "worse": "red", "no significant difference": "dim"}


def print_report(report: Report, console: Console) -> None:
    """Print a report."""
    for section in render_sections(report):
        console.print(section)
        console.print()


def render_sections(report: Report) -> Iterator[RenderableType]:
    """Yield the tables and texts of a report, one evalset after the other."""
    for task, evalset in dict.fromkeys((result.task, result.evalset) for result in report.results):
        results = [result for result in report.results if (result.task, result.evalset) == (task, evalset)]
        comparisons = [
            comparison for comparison in report.comparisons if (comparison.candidate.task, comparison.candidate.evalset) == (task, evalset)
        ]
        requested = len(results[0].items.requested_ids)
        # the evalset's size is 0 for examples without a file
        item_count = pluralize(requested, "item") if requested >= evalset.size else f"{requested} of {pluralize(evalset.size, 'item')}"
        yield Text.assemble((task or report.task, "bold"), f" on {evalset.name}, {item_count}")
        if len(results) > 1:
            # all results of a ranking are on one evalset, so the first shows which; empty if these models are not ranked
            ranking = next((ranking for ranking in report.rankings if ranking[0].result in results), ())
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
    yield from _confusion_section(result)
    if rows := error_class_rows(result):
        table = _empty_table("fault", ">count")
        for row in rows:
            table.add_row(_safe_text(row.name), str(row.count))
        yield table
    yield _notes_line(result)


def _models_table(ranking: Sequence[Ranked], results: Sequence[ModelResult]) -> RenderableType:
    """Return a table of several models, one row each; with a ranking, in its order, and with the best and its ties marked."""
    ordered = [ranked.result for ranked in ranking] or results
    names = [metric.name for metric in ordered[0].metrics]
    has_steps = any(ranked.step is not None for ranked in ranking)
    columns = ["model"]
    if has_steps:
        columns.append(">step")
    if names:
        columns += [f">{names[0]}", "95 % interval"]
    if ranking:
        columns.append("")
    table = _empty_table(*columns, *(f">{name}" for name in names[1:4]))
    for index, result in enumerate(ordered):
        cells = []
        if has_steps:
            step = ranking[index].step
            cells.append("" if step is None else f"{step:,}")
        for metric in result.metrics[:1]:
            cells += [format_value(metric.value), format_interval(metric.low, metric.high)]
        if ranking:
            cells.append("best" if ranking[index].best else "as good" if ranking[index].tied else "")
        cells += [format_value(metric.value) for metric in result.metrics[1:4]]
        table.add_row(_safe_text(result.model), *cells)
    if not ranking:
        return table
    note = (
        f"as good: these {len(ordered[0].items)} items do not distinguish it from the best; "
        "the value of the best is too good on average, because it was chosen on these items"
    )
    return Group(table, Text(note, "dim"))


def _comparison_section(comparison: Comparison) -> Iterator[RenderableType]:
    """Yield the section of a model compared with the baseline."""
    old, new = comparison.baseline, comparison.candidate
    yield _legend(baseline=old.model, model=new.model)
    table = _empty_table("metric", ">baseline", ">model", ">difference", "95 % interval", ">p")
    for metric in comparison.metrics:
        table.add_row(_safe_text(metric.name), format_value(metric.baseline), format_value(metric.candidate), *_difference_cells(metric))
    yield table
    for metric in comparison.metrics:
        if disagreement := describe_disagreement(metric):
            yield Text(f"{printable(metric.name)}: {disagreement}", "dim")
    yield from _slices_table(old, new)
    yield from _confusion_section(new, shares=True)
    if rows := error_class_rows(new, comparison):
        table = _empty_table("fault", ">baseline", ">model", ">change")
        for row in rows:
            table.add_row(_safe_text(row.name), str(row.before), str(row.count), row.change)
        yield table
    pairs_by_title = {
        "newly broken": comparison.broken,
        "newly fixed": comparison.fixed,
        "other counts": comparison.score_changed,
        "other text, same counts": comparison.text_changed,
    }
    for title, pairs in pairs_by_title.items():
        yield from _changed_items_table(title, pairs)
    counts = ", ".join(f"{len(pairs)} {title}" for title, pairs in pairs_by_title.items() if pairs or title.startswith("newly"))
    yield Text(f"{counts}; {comparison.differing} of {comparison.n} replies differ")
    yield Text("\n").join((_notes_line(old), _notes_line(new)))


def _difference_cells(metric: MetricDifference) -> tuple[Text, Text, str]:
    colour = COLOURS[metric.judgement]
    return Text(format_difference(metric), colour), Text(format_difference_interval(metric), colour), format_p_values(metric)


def _slices_table(old: ModelResult, new: ModelResult) -> Iterator[RenderableType]:
    """Yield a table of the slices of both models, by the first metric that slices have; nothing without such a metric."""
    names = slice_metrics(new)
    if not names:
        return
    old_values = {group.name: group.metrics.get(names[0]) for group in old.slices}
    table = _empty_table(f"group ({names[0]})", ">gold", ">baseline", ">model", ">change")
    for group in new.slices[:MAX_SLICES]:
        after, before = group.metrics.get(names[0]), old_values.get(group.name)
        change = "" if before is None or after is None else format_change(after - before)
        table.add_row(_safe_text(group.name), f"{group.support:g}", format_value(before), format_value(after), change)
    yield table


def _confusion_section(result: ModelResult, *, shares: bool = False) -> Iterator[RenderableType]:
    """Yield the confusion table of a model; nothing for a scorer without labels."""
    if confusion := count_confusion(item.score for item in result.items):
        yield ConfusionText(confusion, shares)


@dataclass(frozen=True)
class ConfusionText:
    """A confusion table; its columns have the names of the labels where these fit, else numbers, and as many labels are shown as fit.

    Attributes:
        confusion: The counts.
        shares: Whether precision and recall of each label are shown where they fit.
    """

    confusion: Confusion
    shares: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the widest table that fits, and what it leaves out."""
        most = min(MAX_LABELS, len(self.confusion.labels))
        full = build_table(self.confusion, most)
        drawn = [(full, _draw_confusion(full, ("precision", "recall")))] if self.shares else []
        drawn.append((full, _draw_confusion(full)))
        for count in range(most, 1, -1):
            table = build_table(self.confusion, count)
            drawn.append((table, _draw_confusion(table, numbered=True)))
        unlimited = options.update(max_width=10_000)
        fitting = (pair for pair in drawn if console.measure(pair[1], options=unlimited).maximum <= options.max_width)
        table, text = next(fitting, drawn[-1])
        yield text
        if table.note:
            yield Text(table.note, "dim")


def _draw_confusion(table: ConfusionTable, shares: Sequence[str] = (), *, numbered: bool = False) -> Table:
    """Draw a confusion table; with ``numbered``, labels have numbers, which stand above the columns; ``shares`` are names of last columns."""
    drawn = _empty_table()
    drawn.padding = (0, 0 if numbered else 1, 0, 0)
    size = len(str(len(table.rows)))
    drawn.add_column("gold ↓ answer →", no_wrap=True, overflow="ellipsis", max_width=MAX_LABEL_WIDTH + (size + 1 if numbered else 0))
    for index, name in enumerate(table.columns):
        drawn.add_column(Text(str(index + 1) if numbered and index < len(table.rows) else printable(name)), justify="right", no_wrap=True)
    for name in shares:
        drawn.add_column(name, justify="right", no_wrap=True)
    for index, row in enumerate(table.rows):
        label = f"{index + 1:>{size}} {row.label}" if numbered else row.label
        values = (format_value(row.precision), format_value(row.recall)) if shares else ()
        drawn.add_row(_safe_text(label), *map(_confusion_cell, row.cells), *values)
    return drawn


def _confusion_cell(cell: ConfusionCell) -> Text:
    return Text(cell.text, "bold green" if cell.right else "red" if cell.count else "dim")


def _changed_items_table(title: str, pairs: Sequence[tuple[Item, Item]]) -> Iterator[RenderableType]:
    """Yield a table of a few items with their gold reply and both models' replies; nothing when there are no items."""
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
    gold_lines = {line.strip() for line in gold.split("\n")}
    reply = item.shown.strip() or "(empty)"
    shown = _first_lines(reply.split("\n"), lambda line: "green" if line.strip() in gold_lines else "red")
    classes = ", ".join(error_classes(item))
    return Text.assemble(shown, "\n", _safe_text(f"({classes})", "dim")) if classes else shown


def _first_lines(lines: Sequence[str], style: Callable[[str], str] = lambda line: "") -> Text:
    shown = Text("\n").join(_safe_text(line, style(line)) for line in lines[:MAX_LINES])
    return shown if len(lines) <= MAX_LINES else Text.assemble(shown, (f"\n… {len(lines) - MAX_LINES} more lines", "dim"))


def _safe_text(text: str, style: str = "") -> Text:
    """Return untrusted text, made safe to print; its markup is not interpreted."""
    return Text(printable(text), style)


def _empty_table(*headers: str) -> Table:
    """Return a table without borders; a column whose header begins with ``>`` is right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for header in headers:
        name = header.removeprefix(">")
        table.add_column(name, justify="right" if header.startswith(">") else "left", no_wrap=header.startswith(">"), overflow="fold")
    return table


def _legend(**names: str) -> Text:
    width = max(map(len, names))
    return Text("\n".join(f"{role:<{width}}  {name}" for role, name in names.items()), "dim")


def _notes_line(result: ModelResult) -> Text:
    notes, tokens = model_notes(result), result.items.totals.completion_tokens
    if tokens:
        notes.append(f"{tokens:,} tokens")
    if result.cached:
        notes.append(f"{result.cached} of {len(result.items.requested_ids)} replies cached")
    if result.seconds is not None:
        speed = f" ({tokens / result.seconds:,.0f}/s)" if tokens and result.seconds > 0 else ""
        notes.append(f"{result.seconds:.1f} s{speed}")
    return Text(f"{result.model}: {', '.join(notes)}", "dim")
