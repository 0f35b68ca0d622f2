"""What a changed scorer changes, on the terminal and as JSON: metrics before and now, and the items whose verdict flips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sftchat.evaluation.report.timeline import format_times
from sftchat.evaluation.report.view import format_change, format_interval, format_value
from sftchat.evaluation.rescore import ItemPair, Rescored
from sftchat.text import pluralize, printable

MAX_FLIPS = 20
"""Maximum number of flipped items shown of each model; the JSON lists all."""


def render_rescored(rescored: Sequence[Rescored]) -> Iterator[RenderableType]:
    """Yield the tables and texts on all models, and a last line with the number of flipped verdicts."""
    for one in rescored:
        heading = Text.assemble((printable(one.model), "bold"), printable(f": {one.task} on {one.evalset}, {pluralize(one.size, 'item')}"))
        if one.unchanged:
            yield heading.append(", nothing changes", "dim")
            continue
        yield heading
        if one.result is None:
            yield Text(f"{one.missing} of {pluralize(one.size, 'reply', 'replies')} neither cached nor stored", "yellow")
        else:
            yield _metrics_table(one)
            if one.won or one.lost:
                yield Text("")
                yield _flips_table(one)
            yield Text(_summary(one), "dim")
        yield Text("")
    if all(one.result is None for one in rescored):
        return
    flips = [len(one.won) + len(one.lost) for one in rescored if one.result is not None]
    if not any(flips):
        yield Text("no verdict flips")
        return
    yield Text(f"{pluralize(sum(flips), 'verdict flips', 'verdicts flip')} in {sum(map(bool, flips))} of {pluralize(len(flips), 'result')}")


def _metrics_table(one: Rescored) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    when = "" if one.recorded is None else f" {format_times([one.recorded])[0]}"
    for header in ("metric", f"recorded{when}", "now", "change"):
        table.add_column(header, justify="left" if header == "metric" else "right", no_wrap=header != "metric", overflow="fold")
    table.add_column("95 % interval now", no_wrap=True)
    assert one.result is not None
    before = {} if one.recorded is None else {metric.name: metric.value for metric in one.recorded.metrics}
    for metric in one.result.metrics:
        old = before.get(metric.name)
        change = "" if old is None else format_change(round(metric.value - old, 10))
        interval = format_interval(metric.low, metric.high)
        table.add_row(Text(printable(metric.name)), format_value(old), format_value(metric.value), change, interval)
    return table


def _flips_table(one: Rescored) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for header in ("item", "recorded", "now"):
        table.add_column(header, overflow="fold")
    flips = (*((pair, "red") for pair in one.lost), *((pair, "green") for pair in one.won))
    for (before, now), colour in flips[:MAX_FLIPS]:
        table.add_row(
            Text(printable(now.id)), _verdict(before.right, before.errors), Text.assemble((_verdict(now.right, now.errors), colour))
        )
    if len(flips) > MAX_FLIPS:
        table.add_row(Text(f"… {len(flips) - MAX_FLIPS} more, all with --json", "dim"))
    return table


def _verdict(right: bool | None, errors: Sequence[str]) -> str:
    return "right" if right else printable(f"wrong: {', '.join(errors)}")


def _summary(one: Rescored) -> str:
    if one.recorded is None:
        return "no recorded result of these replies to compare with"
    parts = [f"{len(one.won)} now right", f"{len(one.lost)} now wrong", f"{len(one.recounted)} with other counts"]
    if one.unlike:
        parts.append(f"{one.unlike} not compared: other replies than those recorded")
    return ", ".join(parts)


def rescored_to_json(one: Rescored) -> dict[str, Any]:
    """Return everything about one model as JSON values."""

    def pairs(of: Sequence[ItemPair]) -> list[dict[str, Any]]:
        return [{"id": now.id, "recorded": asdict(before), "now": asdict(now)} for before, now in of]

    return {
        "model": one.model,
        "task": one.task,
        "evalset": one.evalset,
        "size": one.size,
        "missing": one.missing,
        "recorded": None if one.recorded is None else asdict(one.recorded),
        "metrics": None if one.result is None else [asdict(metric) for metric in one.result.metrics],
        "won": pairs(one.won),
        "lost": pairs(one.lost),
        "recounted": pairs(one.recounted),
        "unlike": one.unlike,
    }
