"""The result of ``sftchat.evaluate``: verdict, metrics and items, as data frames, HTML and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any, overload

from sftchat.api.wording import in_python
from sftchat.errors import SftchatError, UsageError
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report.view import (
    Report,
    comparison_of,
    error_classes,
    format_difference,
    format_interval,
    format_p_values,
    format_value,
    item_histories,
    reply_text,
)
from sftchat.evaluation.results import MetricResult, ModelResult
from sftchat.evaluation.scored import Item

TONES = {"pass": "#218739", "fail": "#d43a45", "unsure": "#9a6f00"}
"""Colours of verdicts: the contrast with a white page and with a dark one (#111111) is at least 4."""
SHOWN_ROWS = 10
"""Number of rows of a table that a notebook shows."""
SHOWN_CHARACTERS = 200
"""Number of characters of a cell that a notebook shows."""


class Table(Sequence[dict[str, Any]]):
    """Rows as dicts with the same keys, which can be shown as a data frame.

    Args:
        rows: The rows; a key that a row lacks is added with None.

    Attributes:
        columns: The keys.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.columns = tuple(dict.fromkeys(key for row in rows for key in row))
        self._rows = [{column: row.get(column) for column in self.columns} for row in rows]

    def to_pandas(self) -> Any:
        """Return the rows as a ``pandas.DataFrame``.

        Raises:
            SftchatError: When pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise SftchatError("to_pandas needs a package that is not installed: pip install pandas")
        return import_module("pandas").DataFrame(self._rows, columns=list(self.columns))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self._rows[index]

    def __repr__(self) -> str:
        return f"<{len(self)} rows with {', '.join(self.columns) or 'no columns'}>"

    def _repr_html_(self) -> str:
        """Return the first rows for a notebook."""
        cells = [["" if value is None else _abbreviated(str(value)) for value in row.values()] for row in self._rows[:SHOWN_ROWS]]
        more = f"<p>{len(self) - SHOWN_ROWS} more rows; to_pandas() has them all</p>" if len(self) > SHOWN_ROWS else ""
        return _html_table(self.columns, cells) + more


def _abbreviated(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _html_cell(text: str) -> str:
    return f'<td style="text-align:left">{html.escape(text)}</td>'


def _html_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table without colours of its own, so that it has those of the notebook's theme."""
    head = "".join(f'<th style="text-align:left">{html.escape(header)}</th>' for header in headers)
    body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class EvaluationReport:
    """Report of an evaluation.

    Args:
        report: The report as ``sftchat eval`` writes it.
        notes: Lines for the user.

    Attributes:
        report: The same, with all details: results, comparisons, gate results, rankings.
        notes: Lines for the user, such as which columns were read and which files were written.
    """

    def __init__(self, report: Report, notes: Sequence[str] = ()) -> None:
        self.report = report
        self.notes = tuple(notes)

    @property
    def verdict(self) -> Verdict:
        """The verdict: ``outcome``, ``exit_code``, and ``reasons``, one line each."""
        verdict = self.report.verdict
        assert verdict is not None
        return replace(verdict, reasons=tuple(map(in_python, verdict.reasons)))

    @property
    def passed(self) -> bool:
        """Whether the exit code of ``sftchat eval`` would be 0."""
        return self.verdict.exit_code == 0

    @property
    def results(self) -> tuple[ModelResult, ...]:
        """One result per model and evalset."""
        return self.report.results

    @property
    def metrics(self) -> Mapping[str, MetricResult]:
        """The metrics of the only result, by name, each with ``value``, ``low`` and ``high``.

        Raises:
            UsageError: When there are several results.
        """
        if len(self.results) != 1:
            raise UsageError(f"the report has {len(self.results)} results; choose one of report.results, or take report.to_pandas()")
        return {metric.name: metric for metric in self.results[0].metrics}

    @cached_property
    def items(self) -> Table:
        """One row per item of each result, in the order of the evalset: id, prompt, gold, reply, answer, right, errors and counts; with a baseline
        also its reply and the change."""
        return Table([row for result in self.results for row in self._item_rows(result)])

    def _item_rows(self, result: ModelResult) -> Iterator[dict[str, Any]]:
        comparison = comparison_of(self.report, result)
        histories = {history.example.id: history for history in item_histories(result, comparison)}
        for history in (histories[item_id] for item_id in result.items.requested_ids):
            new, example = history.new, history.example
            item = new if isinstance(new, Item) else None
            row: dict[str, Any] = {
                "model": result.model,
                "task": result.task,
                "evalset": result.evalset.name,
                "id": example.id,
                "prompt": example.messages[-1]["content"] if example.messages else "",
                "gold": example.gold,
                "reply": reply_text(new),
                "answer": item.score.answer if item is not None else None,
                "right": item.right if item is not None else None,
                "errors": list(error_classes(new)),
                **({f"count_{key}": value for key, value in item.score.stats.items()} if item is not None else {}),
            }
            if comparison is not None:
                row |= {"baseline_reply": reply_text(history.old), "change": history.change}
            yield row

    def to_pandas(self) -> Any:
        """Return the metrics as a ``pandas.DataFrame``: one row per model, evalset and metric, with the difference from the baseline if there is one.

        Raises:
            SftchatError: When pandas is not installed.
        """
        return Table(list(self._metric_rows())).to_pandas()

    def _metric_rows(self) -> Iterator[dict[str, Any]]:
        for result in self.results:
            comparison = comparison_of(self.report, result)
            for metric in result.metrics:
                row: dict[str, Any] = {
                    "model": result.model, "task": result.task, "evalset": result.evalset.name, "metric": metric.name,
                    "value": metric.value, "low": metric.low, "high": metric.high, "n": len(result.items),
                }  # fmt: skip
                if comparison is not None and comparison.metrics:
                    difference = comparison.metric(metric.name)
                    row |= {
                        "baseline": difference.baseline, "difference": difference.difference, "difference_low": difference.low,
                        "difference_high": difference.high, "p": difference.p, "judgement": difference.judgement,
                    }  # fmt: skip
                yield row

    def to_json(self) -> str:
        """Return ``report.json``."""
        return self.report.to_json()

    def to_html(self) -> str:
        """Return the report as one HTML page without external resources."""
        from sftchat.evaluation.report.html import to_html

        return to_html(self.report, self.verdict)

    def __repr__(self) -> str:
        parts = [
            f"{result.model} on {result.evalset.name}: "
            + ", ".join(f"{metric.name} {format_value(metric.value)}" for metric in result.metrics[:3])
            for result in self.results
        ]
        return f"<{self.verdict.headline or 'no verdict asked'}; {'; '.join(parts)}>"

    def _repr_html_(self) -> str:
        """Return the verdict and the metrics for a notebook; colours of the notebook's theme."""
        verdict = self.verdict
        headline = f'<p><b style="color:{TONES[verdict.tone]}">{html.escape(verdict.headline)}</b></p>' if verdict.headline else ""
        reasons = "".join(f"<li>{html.escape(line)}</li>" for line in verdict.reasons)
        compared = bool(self.report.comparisons)
        headers = ("model", "evalset", "metric", "value", "95 % interval", *(("baseline", "difference", "p") if compared else ()))
        return f"{headline}{_html_table(headers, self._shown_rows())}{f'<ul>{reasons}</ul>' if reasons else ''}"

    def _shown_rows(self) -> Iterator[list[str]]:
        for result in self.results:
            comparison = comparison_of(self.report, result)
            for metric in result.metrics:
                cells = [
                    result.model,
                    result.evalset.name,
                    metric.name,
                    format_value(metric.value),
                    format_interval(metric.low, metric.high),
                ]
                if comparison is not None and comparison.metrics:
                    difference = comparison.metric(metric.name)
                    cells += [format_value(difference.baseline), format_difference(difference), format_p_values(difference)]
                yield cells
