"""The history on the terminal: a table of the results of a series, whose intervals are drawn on one axis, and the runs of one item."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from sftchat.evaluation.gate import COLOURS as TONE_COLOURS
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.history import ItemRun, ItemSection, Run, Section
from sftchat.evaluation.ledger import LedgerResult
from sftchat.evaluation.report.terminal import COLOURS
from sftchat.evaluation.report.view import format_difference, format_interval, format_value
from sftchat.text import pluralize, printable

GAP = "  "
MIN_BAR, ROOMY_BAR, MAX_BAR = 10, 20, 40
"""Width of the drawn intervals in columns of the terminal; they are left out when less than the minimum is free, and the numbers of items won and lost
when less than the second would be."""
MIN_MODEL, MAX_MODEL = 10, 32
"""Width of the model's name."""
MARKS = {"pass": "✓", "fail": "✗", "unsure": "?"}
"""Mark of a verdict, by its tone; a verdict that was not asked for has none."""
BAR = ("├", "─", "┤", "█")
ASCII_BAR = ("|", "-", "|", "#")
"""Start, middle and end of an interval, and the value."""
LEGEND = {"~": "not significant against the run before", "✓": "verdict pass", "✗": "verdict fail", "?": "verdict undecided"}


@dataclass(frozen=True)
class Axis:
    """Common axis of the drawn intervals.

    Attributes:
        low: Value at the left end.
        high: Value at the right end, above ``low``.
    """

    low: float
    high: float

    def position(self, value: float, width: int) -> int:
        """Return the column of a value, from 0 to ``width - 1``."""
        return min(width - 1, max(0, round((value - self.low) / (self.high - self.low) * (width - 1))))


@dataclass(frozen=True)
class Column:
    """A column of a table: its header and one cell per row; numbers are aligned to the right."""

    header: Text
    cells: Sequence[Text]
    right: bool = False

    @property
    def width(self) -> int:
        """Width of the widest cell; 0 when all cells are empty, and the column is then left out."""
        widest = max((cell.cell_len for cell in self.cells), default=0)
        return max(widest, self.header.cell_len) if widest else 0


def print_history(sections: Sequence[Section], console: Console) -> None:
    """Print the sections, and what their marks mean."""
    used: set[str] = set()
    for section in sections:
        for line in section_lines(section, console.width, is_ascii=not console.encoding.startswith("utf")):
            used.update(mark for mark in LEGEND if mark in line.plain)
            console.print(line, no_wrap=True, overflow="crop", crop=True)
        console.print()
    meanings = [f"{mark} {meaning}" for mark, meaning in LEGEND.items() if mark in used]
    if meanings:
        fits = len("   ".join(meanings)) <= console.width
        console.print(Text(("   " if fits else "\n").join(meanings), "dim"))


def section_lines(section: Section, width: int, *, is_ascii: bool = False) -> Iterator[Text]:
    """Yield the lines of a section.

    Args:
        section: The section.
        width: Width of the terminal in columns.
        is_ascii: Whether the terminal shows no other characters.
    """
    runs = section.runs
    if section.note:
        yield Text(printable(section.note), "yellow")
    size = f", {pluralize(section.evalset.size, 'item')}" if section.evalset.size else ""
    yield Text.assemble((printable(section.task), "bold"), printable(f" on {section.evalset.name}{size}"))
    columns = _columns(runs)
    for header in ("95 % interval", "step", "when"):  # on a narrow terminal
        if _free(width, columns) < MIN_MODEL:
            columns = [column for column in columns if column.header.plain != header]
    free = _free(width, columns)
    model = _model_column([run.result for run in runs], _model_width(free))
    columns.insert(1, model)
    free = _free(width, columns)
    items = Column(Text("items"), [_item_changes(run) for run in runs])
    if items.width and free - items.width - len(GAP) >= ROOMY_BAR:
        columns.insert(len(columns) - 1, items)
        free = _free(width, columns)
    axis = make_axis([run.result for run in runs])
    if axis is not None and free >= MIN_BAR:
        columns.insert(
            [column.header.plain for column in columns].index("change"), _bar_column(runs, axis, min(MAX_BAR, free), is_ascii=is_ascii)
        )
    yield from _table_lines(columns, {index: _rescored_line(run) for index, run in enumerate(runs) if run.rescored})


def _model_width(free: int) -> int:
    """Return the maximum width of the model's name: what the drawn intervals leave of the free columns, or all if there is no room for them."""
    beside_bar = free - MIN_BAR - len(GAP)
    return min(MAX_MODEL, beside_bar if beside_bar >= MIN_MODEL else max(MIN_MODEL, free - len(GAP)))


def _free(width: int, columns: Iterable[Column]) -> int:
    """Return how many columns of the terminal another column may take."""
    return width - sum(column.width + len(GAP) for column in columns if column.width)


def _columns(runs: Sequence[Run]) -> list[Column]:
    """Return all columns but that of the models and the drawn intervals: time, step, value, interval, change, mark."""
    results = [run.result for run in runs]
    metric = printable(results[-1].metrics[0].name) if results[-1].metrics else "value"
    values = [format_value(result.metrics[0].value) if result.metrics else "" for result in results]
    intervals = [format_interval(result.metrics[0].low, result.metrics[0].high) if result.metrics else "" for result in results]
    return [
        Column(Text("when"), _cells(format_times(results), results)),
        Column(Text("step"), _cells(map(_step, results), results), right=True),
        Column(Text(metric), _cells(values, results), right=True),
        Column(Text("95 % interval"), _cells(intervals, results)),
        Column(Text("change"), [_change(run) for run in runs], right=True),
        Column(Text(""), [_mark(result) for result in results]),
    ]


def _cells(texts: Iterable[str], results: Iterable[LedgerResult]) -> list[Text]:
    """Return cells, dim for incomplete results."""
    return [Text(text, "" if result.complete else "dim") for text, result in zip(texts, results, strict=True)]


def _model_column(results: Sequence[LedgerResult], width: int) -> Column:
    return Column(Text("model"), _cells((shorten_start(model_name(result), width) for result in results), results))


def _bar_column(runs: Sequence[Run], axis: Axis, width: int, *, is_ascii: bool) -> Column:
    low, high = f"{axis.low:g}", f"{axis.high:g}"
    header = Text(low + " " * (width - len(low) - len(high)) + high)
    return Column(header, [Text(draw_interval(run.result, axis, width, is_ascii=is_ascii)) for run in runs])


def _table_lines(columns: Sequence[Column], before_row: dict[int, Text]) -> Iterator[Text]:
    """Yield the header and the rows of a table; ``before_row`` has further lines, by the index of the row that follows."""
    shown = [(column, column.width) for column in columns if column.width]

    def line(cells: Iterable[Text]) -> Text:
        padded = [_pad(cell, width, right=column.right) for cell, (column, width) in zip(cells, shown, strict=True)]
        joined = Text(GAP).join(padded)
        joined.rstrip()
        return joined

    header = line(column.header for column, _ in shown)
    header.stylize("dim")
    yield header
    for index in range(len(columns[0].cells)):
        if index in before_row:
            yield before_row[index]
        yield line(column.cells[index] for column, _ in shown)


def _pad(cell: Text, width: int, *, right: bool) -> Text:
    spaces = " " * (width - cell.cell_len)
    return Text.assemble(spaces, cell) if right else Text.assemble(cell, spaces)


def make_axis(results: Iterable[LedgerResult]) -> Axis | None:
    """Return an axis with round ends that shows the intervals of all complete results; None without any."""
    metrics = [result.metrics[0] for result in results if result.complete and result.metrics]
    if not metrics:
        return None
    low = min(metric.value if metric.low is None else metric.low for metric in metrics)
    high = max(metric.value if metric.high is None else metric.high for metric in metrics)
    if high - low < 1e-9:
        low, high = low - 0.05, high + 0.05
    step = 10 ** math.floor(math.log10(high - low)) / 2
    return Axis(round(math.floor(low / step + 1e-9) * step, 10), round(math.ceil(high / step - 1e-9) * step, 10))


def draw_interval(result: LedgerResult, axis: Axis, width: int, *, is_ascii: bool = False) -> str:
    """Draw the primary metric of a result and its interval; empty for an incomplete result.

    Args:
        result: The result.
        axis: Axis of the drawing.
        width: Width of the drawing in columns, at least 1.
        is_ascii: Whether to draw with ASCII characters.
    """
    if not (result.complete and result.metrics):
        return ""
    start, middle, end, value = ASCII_BAR if is_ascii else BAR
    metric, cells = result.metrics[0], [" "] * width
    if metric.low is not None and metric.high is not None:
        first, last = axis.position(metric.low, width), axis.position(metric.high, width)
        cells[first : last + 1] = middle * (last - first + 1)
        cells[first], cells[last] = start, end
    cells[axis.position(metric.value, width)] = value
    return "".join(cells).rstrip()


def _change(run: Run) -> Text:
    """Return the change since the run before; for an incomplete result, how much of the evalset it has."""
    result = run.result
    if result.failed:
        return Text(f"{result.failed} failed", "dim")
    if not result.complete:
        return Text(f"{result.answered} of {result.evalset.size}", "dim")
    if run.difference is not None:
        return Text(format_difference(run.difference), COLOURS[run.difference.judgement])
    return Text("" if run.change is None else f"{run.change:+.3f}")


def _item_changes(run: Run) -> Text:
    """Return the numbers of items won and lost since the run before."""
    won, lost = f"+{len(run.won)}" if run.won else "", f"-{len(run.lost)}" if run.lost else ""
    return Text(" ".join(filter(None, (won, lost))), "dim")


def _mark(result: LedgerResult) -> Text:
    if result.verdict in ("", "not asked"):
        return Text("")
    tone = Verdict(result.verdict).tone  # type: ignore[arg-type]
    return Text(MARKS[tone], TONE_COLOURS[tone])


def _rescored_line(run: Run) -> Text:
    replies = "reply is" if run.rescored == 1 else "replies are"
    return Text(f"the scorer has changed: {run.rescored} {replies} as in the run above and counted otherwise", "yellow")


def model_name(result: LedgerResult) -> str:
    """Return the name of the model, without the step that has a column of its own."""
    return printable(result.model.removesuffix(f"/checkpoint-{result.step}"))


def _step(result: LedgerResult) -> str:
    return "" if result.step is None else f"{result.step:,}"


def shorten_start(text: str, width: int) -> str:
    """Shorten a text to a width in columns of the terminal; its end, which tells runs apart, stays."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[1:]
    return f"…{text}"


def format_times(results: Iterable[LedgerResult]) -> list[str]:
    """Return the local times of results; if some are not of this year, their dates with the year."""
    times = [datetime.fromtimestamp(result.time, UTC).astimezone() for result in results]
    is_this_year = all(time.year == datetime.now(UTC).astimezone().year for time in times)
    return [time.strftime("%m-%d %H:%M" if is_this_year else "%Y-%m-%d") for time in times]


def print_item_history(item_id: str, sections: Sequence[ItemSection], console: Console) -> None:
    """Print when an item was won and lost, one line per run."""
    for section in sections:
        for line in item_section_lines(item_id, section, console.width):
            console.print(line, no_wrap=True, overflow="crop", crop=True)
        console.print()


def item_section_lines(item_id: str, section: ItemSection, width: int) -> Iterator[Text]:
    """Yield the lines of a section of an item's history; the arguments are those of ``section_lines``."""
    runs = section.runs
    if section.note:
        yield Text(printable(section.note), "yellow")
    answered = [run for run in runs if run.item.right is not None]
    right = sum(run.item.right is True for run in answered)
    summary = f", right in {right} of {pluralize(len(answered), 'run')}"
    yield Text.assemble((printable(item_id), "bold"), printable(f" of {section.task} on {section.evalset}{summary}"))
    columns = [
        Column(Text("when"), [Text(when) for when in format_times(run.result for run in runs)]),
        Column(Text("step"), [Text(_step(run.result)) for run in runs], right=True),
        Column(Text("item"), [_verdict_cell(run) for run in runs]),
        Column(Text("value"), _item_values(runs), right=True),
        Column(Text("reply"), [Text(_reply_word(run), "dim") for run in runs]),
    ]
    free = _free(width, columns)
    model = Column(Text("model"), [Text(shorten_start(model_name(run.result), min(MAX_MODEL, max(MIN_MODEL, free // 2)))) for run in runs])
    columns.insert(1, model)
    faults = [printable(", ".join(run.item.errors)) for run in runs]
    room = max(MIN_MODEL, free - model.width - len(GAP))
    columns.append(
        Column(Text("faults"), [Text(fault if cell_len(fault) <= room else set_cell_size(fault, room - 1) + "…") for fault in faults])
    )
    yield from _table_lines(columns, {})


def _item_values(runs: Sequence[ItemRun]) -> list[Text]:
    """Return the primary metric of the item alone; empty cells when right and wrong say the same."""
    values = [run.item.value for run in runs]
    says_more = any(value not in (0.0, 1.0, None) for value in values)
    return [Text(format_value(value) if says_more else "") for value in values]


def _verdict_cell(run: ItemRun) -> Text:
    if run.item.right is None:
        return Text("not answered", "yellow")
    word = "right" if run.item.right else "wrong"
    colour = {"won": "green", "lost": "red"}.get(run.change, "")
    return Text(f"{word}, {run.change}" if run.change else word, colour)


def _reply_word(run: ItemRun) -> str:
    if run.same_reply is None:
        return ""
    return "same, other scorer" if run.rescored else "same" if run.same_reply else "changed"
