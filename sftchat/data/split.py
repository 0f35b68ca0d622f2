"""Train/test split without leakage: groups stay together, and test rows with near duplicates in training move to training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from statistics import mode
from typing import Any

from sftchat.data.duplicates import comparison_key, prompt_text
from sftchat.data.leakage import find_leaks
from sftchat.errors import DataError
from sftchat.text import abbreviate, keys_of
from sftchat.types import Example, Message


@dataclass(frozen=True)
class Split:
    """Result of a split.

    Attributes:
        test: Indices of the test rows, from 0.
        groups: Number of groups.
        moved: Number of rows selected for testing and moved to training because of a near-duplicate prompt.
    """

    test: frozenset[int]
    groups: int
    moved: int


def column_value(row: Mapping[str, Any], column: str, source: str) -> str:
    """Return a column's value, also from ``metadata``, as text that is distinct for distinct values.

    Raises:
        DataError: When the row has no such column.
    """
    metadata = row.get("metadata")
    for values in (row, metadata):
        if isinstance(values, Mapping) and column in values:
            return abbreviate(values[column], 1 << 20)
    raise DataError(f"there is no column {abbreviate(column)}; the row has the keys {keys_of(row)}", source)


def split(examples: Sequence[Example], test: float, seed: int, *, groups: Sequence[str] = (), strata: Sequence[str] = ()) -> Split:
    """Select the test rows; deterministic in rows and seed.

    Rows with the same prompt form one group. In each stratum, groups are selected in the order of a hash of seed and group, until they have the
    share for testing. Then selected rows with nearly the same prompt as a training row move to training with their group.

    Args:
        examples: All rows.
        test: Fraction of the rows for testing, between 0 and 1, or their number, from 1.
        seed: Seed of the order of groups.
        groups: Group of each row; empty to group by prompt only.
        strata: Stratum of each row; empty for a single stratum.

    Raises:
        DataError: When no row, or every row, would be for testing.
    """
    prompts = [prompt_text(example) or example.gold or "" for example in examples]
    rows_of_groups = _group_rows([comparison_key(text) for text in prompts], groups)
    share = test if test < 1 else test / len(examples)
    if share >= 1:
        raise DataError(f"--test is {test:g} of {len(examples)} rows, so none would be for training; give less")
    selected = _select_groups(rows_of_groups, strata, share, seed)
    if not selected:
        smallest = min(map(len, rows_of_groups))
        raise DataError(f"--test {test:g} of {len(examples)} rows is less than the smallest group, which has {smallest}; give more")
    if len(selected) == len(rows_of_groups):
        raise DataError(f"--test {test:g} of {len(examples)} rows leaves none for training; give less")
    questions = [replace(example, messages=(Message(role="user", content=text),)) for example, text in zip(examples, prompts, strict=True)]
    test_groups = _remove_leaking(rows_of_groups, selected, questions)
    if not test_groups:
        raise DataError("no row is left for testing: all selected rows have the same prompt as a training row, or nearly the same")
    test_rows = frozenset(row for group in test_groups for row in rows_of_groups[group])
    moved = sum(len(rows_of_groups[group]) for group in selected - test_groups)
    return Split(test_rows, len(rows_of_groups), moved)


def _group_rows(prompts: Sequence[Any], groups: Sequence[str]) -> list[list[int]]:
    """Return the row indices of each group, in file order, by union-find.

    Two rows are in one group if they have the same prompt or the same value in ``groups``, or if a chain of such rows connects them.
    """
    parent = list(range(len(prompts)))

    def find_root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]  # shortens the path of later calls
            row = parent[row]
        return row

    for keys in (prompts, groups):
        first_rows: dict[Any, int] = {}
        for row, key in enumerate(keys):
            root, other_root = sorted((find_root(first_rows.setdefault(key, row)), find_root(row)))
            parent[other_root] = root
    rows_by_root: dict[int, list[int]] = defaultdict(list)
    for row in range(len(prompts)):
        rows_by_root[find_root(row)].append(row)
    return list(rows_by_root.values())


def _select_groups(rows_of_groups: Sequence[Sequence[int]], strata: Sequence[str], share: float, seed: int) -> set[int]:
    """Return the indices of the test groups; in each stratum, they have at most the given share of its rows."""
    groups_by_stratum: dict[str, list[int]] = defaultdict(list)
    for group, rows in enumerate(rows_of_groups):
        stratum = mode(strata[row] for row in rows) if strata else ""
        groups_by_stratum[stratum].append(group)

    def hash_of_group(group: int) -> bytes:
        return blake2b(f"{seed}-{rows_of_groups[group][0]}".encode(), digest_size=16).digest()

    selected: set[int] = set()
    for groups in groups_by_stratum.values():
        rows_to_select = round(share * sum(len(rows_of_groups[group]) for group in groups))
        for group in sorted(groups, key=hash_of_group):
            if len(rows_of_groups[group]) <= rows_to_select:
                rows_to_select -= len(rows_of_groups[group])
                selected.add(group)
    return selected


def _remove_leaking(rows_of_groups: Sequence[Sequence[int]], selected: set[int], questions: Sequence[Example]) -> set[int]:
    """Return the selected groups without those that nearly duplicate a training row; removed groups are training rows too."""
    group_of_row = {row: group for group, rows in enumerate(rows_of_groups) for row in rows}
    test_groups = set(selected)
    while test_groups:
        items = [replace(questions[row], id=str(row)) for group in sorted(test_groups) for row in rows_of_groups[group]]
        training = (questions[row] for row, group in group_of_row.items() if group not in test_groups)
        leaking = {group_of_row[int(leak.id)] for leak in find_leaks(items, training)}
        if not leaking:
            break
        test_groups -= leaking  # with fewer items the shared instruction may change, so all rows are compared again
    return test_groups
