"""Ratings of items by people and by a judge, read from files of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sftchat.data.read import read_rows
from sftchat.errors import DataError, UsageError, list_quoted, unknown_name_message
from sftchat.text import abbreviate, keys_of

Scale = Literal["nominal", "ordinal", "interval"]
SCALES: tuple[Scale, ...] = get_args(Scale)
Value = str | float
MAX_RANGE = 100
"""Ordinal ratings that are whole numbers no further apart than this have every whole number between them as a possible rating."""


@dataclass(frozen=True)
class RatingColumns:
    """Where the ratings are in a row.

    Attributes:
        id: Column of the item's id.
        judge: Column of the judge's rating; in the long format also the name that the judge has in the column ``rater``.
        people: Columns of people's ratings, one for each person; in the long format exactly one, with the rating of the row's rater.
        rater: Column with the name of the person who rated, of the long format: one row for each item and rater. Empty for one row for each item.
    """

    id: str = "id"
    judge: str = "judge"
    people: tuple[str, ...] = ("person",)
    rater: str = ""


@dataclass(frozen=True)
class Ratings:
    """Ratings of items.

    Attributes:
        judge: Name of the judge.
        people: Names of the people, in the order of their first rating.
        by_item: Ratings by item id, then by name of the rater; a missing rating is left out.
        scale: ``nominal``: ratings are equal or not. ``ordinal``: they have an order. ``interval``: their differences have a size.
        categories: The possible ratings in their order; for nominal and interval ratings those that occur, sorted.
    """

    judge: str
    people: tuple[str, ...]
    by_item: Mapping[str, Mapping[str, Value]]
    scale: Scale
    categories: tuple[Value, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether the ratings are numbers."""
        return not isinstance(self.categories[0], str)


def read_ratings(
    paths: Sequence[Path], columns: RatingColumns | None = None, *, scale: Scale | None = None, order: Sequence[str] = ()
) -> Ratings:
    """Read ratings from files; the rows of one item may be in several files.

    Args:
        paths: Files in any format of ``sftchat.data.read.read_rows``.
        columns: Where the ratings are in a row; ``RatingColumns()`` by default.
        scale: Scale of the ratings; None for ``ordinal`` when they are numbers or ``order`` is given, and ``nominal`` otherwise.
        order: The possible ratings, the lowest first, when they are texts with an order.

    Raises:
        UsageError: When the arguments contradict each other or the ratings.
        DataError: When a file is malformed, a column is missing, an item has two ratings of one rater, or no item has a rating of the judge and
            of a person.
    """
    columns = columns or RatingColumns()
    if columns.rater and len(columns.people) != 1:
        raise UsageError(f"with --rater, one column has all people's ratings; give one --person, not {len(columns.people)}")
    if len({columns.judge, *columns.people}) != 1 + len(columns.people):
        raise UsageError(f"--judge '{columns.judge}' and the columns of --person must all differ")
    by_item: dict[str, dict[str, Value]] = {}
    seen: set[str] = set()
    for path in paths:
        for source, row in read_rows(path):
            seen.update(row)
            item_id = _item_id(row, columns.id, source)
            ratings = by_item.setdefault(item_id, {})
            for rater, value in _row_ratings(row, columns, source):
                if (rater != columns.judge and rater in ratings) or ratings.get(rater, value) != value:
                    raise DataError(f"item '{item_id}' has a second rating by '{rater}'", source)
                ratings[rater] = value
    _check_columns(columns, seen, str(paths[0]))
    if not any(columns.judge in ratings and len(ratings) > 1 for ratings in by_item.values()):
        raise DataError(f"no item has both a rating by '{columns.judge}' and one by a person", str(paths[0]))
    return _with_scale(columns.judge, by_item, scale, order)


def _item_id(row: Mapping[str, Any], column: str, source: str) -> str:
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"the row has no item id in '{column}'; it has {keys_of(row)}", source)
    return value.strip()


def _row_ratings(row: Mapping[str, Any], columns: RatingColumns, source: str) -> Iterable[tuple[str, Value]]:
    """Yield rater and rating for every rating in a row."""
    if columns.rater:
        rater = row.get(columns.rater)
        cells = [(columns.judge, columns.judge)]
        if rater not in (None, ""):
            if not isinstance(rater, str):
                raise DataError(f"'{columns.rater}' is {abbreviate(rater)}, must be the name of a rater", source)
            cells.append((rater.strip(), columns.people[0]))
    else:
        cells = [(column, column) for column in (columns.judge, *columns.people)]
    for rater, column in cells:
        value = _parse_value(row.get(column), column, source)
        if value is not None:
            yield rater, value


def _parse_value(value: Any, column: str, source: str) -> Value | None:
    """Return a rating as a number or a text; None for a missing one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return float(value)
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"the rating '{column}' is {abbreviate(value)}, must be a number or a text", source)
    return value.strip() or None


def _check_columns(columns: RatingColumns, seen: set[str], source: str) -> None:
    """Raise ``DataError`` for a column that no row has."""
    required = [*columns.people, *([columns.rater] if columns.rater else [columns.judge])]
    for column in required:
        if column not in seen:
            raise DataError(unknown_name_message("column", column, sorted(seen)), source)


def _with_scale(judge: str, by_item: Mapping[str, Mapping[str, Value]], scale: Scale | None, order: Sequence[str]) -> Ratings:
    """Convert texts that are numbers, and decide scale and categories."""
    values = {value for ratings in by_item.values() for value in ratings.values()}
    numbers = {} if order else {value: number for value in values if (number := _to_number(value)) is not None}
    is_numeric = len(numbers) == len(values)
    if not is_numeric:
        by_item = {item_id: {rater: _to_text(value) for rater, value in ratings.items()} for item_id, ratings in by_item.items()}
    else:
        by_item = {item_id: {rater: numbers[value] for rater, value in ratings.items()} for item_id, ratings in by_item.items()}
    scale = scale or ("ordinal" if is_numeric or order else "nominal")
    people = tuple(dict.fromkeys(rater for ratings in by_item.values() for rater in ratings if rater != judge))
    texts = sorted({_to_text(value) for value in values})
    if is_numeric:
        return Ratings(judge, people, by_item, scale, _number_categories(set(numbers.values()), scale))
    if scale == "interval":
        other = next(text for text in texts if _to_number(text) is None)
        raise UsageError(f"--scale interval needs numbers, and a rating is '{other}'")
    if not order:
        if scale == "ordinal":
            raise UsageError(f"--scale ordinal needs the order of the ratings {list_quoted(texts)}: --order LOWEST,…,HIGHEST")
        return Ratings(judge, people, by_item, scale, tuple(texts))
    if len(set(order)) < len(order):
        raise UsageError(f"--order {','.join(order)} has a rating twice")
    if missing := [text for text in texts if text not in order]:
        raise UsageError(f"--order {','.join(order)} lacks the ratings {list_quoted(missing)}")
    return Ratings(judge, people, by_item, scale, tuple(order))


def _number_categories(values: set[float], scale: Scale) -> tuple[float, ...]:
    low, high = min(values), max(values)
    if scale == "ordinal" and all(value.is_integer() for value in values) and high - low <= MAX_RANGE:
        return tuple(float(value) for value in range(int(low), int(high) + 1))
    return tuple(sorted(values))


def _to_number(value: Value) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _to_text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"
