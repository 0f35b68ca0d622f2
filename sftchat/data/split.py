"""Train/test split without leakage: groups stay together, and test rows with near duplicates in training move to training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
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
    inner = row.get("metadata")
    for place in (row, inner if isinstance(inner, Mapping) else {}):
        if column in place:
            return abbreviate(place[column], 1 << 20)
    raise DataError(f"there is no column {abbreviate(column)}; the row has the keys {keys_of(row)}", source)


def split(examples: Sequence[Example], test: float, seed: int, *, groups: Sequence[str] = (), strata: Sequence[str] = ()) -> Split:
    """Select the test rows; deterministic in rows and seed.

    Rows with the same prompt form one group. In each stratum, groups are taken in the order of a hash of seed and group until its share is
    reached. Then rows with nearly the same prompt as a training row move to training with their group, until there are none.

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
    members = _group_rows([comparison_key(text) for text in prompts], groups)
    share = test if test < 1 else test / len(examples)
    if share >= 1:
        raise DataError(f"--test is {test:g} of {len(examples)} rows, so none would be for training; give less")
    selected = _select_groups(members, strata, share, seed)
    if not selected:
        smallest = min(map(len, members))
        raise DataError(f"--test {test:g} of {len(examples)} rows is less than the smallest group, which has {smallest}; give more")
    if len(selected) == len(members):
        raise DataError(f"--test {test:g} of {len(examples)} rows leaves none for training; give less")
    questions = [replace(example, messages=(Message(role="user", content=text),)) for example, text in zip(examples, prompts, strict=True)]
    test_groups = _remove_leaking(members, selected, questions)
    if not test_groups:
        raise DataError("no row is left for testing: the prompts of all that were chosen stand, or nearly, in the others")
    rows, rows_before = ({place for group in some for place in members[group]} for some in (test_groups, selected))
    return Split(frozenset(rows), len(members), len(rows_before) - len(rows))


def _group_rows(prompts: Sequence[Any], groups: Sequence[str]) -> list[list[int]]:
    """Return the groups as lists of row indices, in file order."""
    leader = list(range(len(prompts)))

    def find(place: int) -> int:
        """Return the first row of the group of a row (union-find root)."""
        while leader[place] != place:
            leader[place] = place = leader[leader[place]]
        return place

    for keys in (prompts, groups):
        first: dict[Any, int] = {}
        for place, name in enumerate(keys):
            first_leader, later_leader = sorted((find(first.setdefault(name, place)), find(place)))
            leader[later_leader] = first_leader
    members: dict[int, list[int]] = defaultdict(list)
    for place in range(len(prompts)):
        members[find(place)].append(place)
    return list(members.values())


def _select_groups(members: Sequence[Sequence[int]], strata: Sequence[str], share: float, seed: int) -> set[int]:
    """Select the test groups: in each stratum, its share of the rows."""
    of_stratum: dict[str, list[int]] = defaultdict(list)
    for group, places in enumerate(members):
        stratum = Counter(strata[place] for place in places).most_common(1)[0][0] if strata else ""
        of_stratum[stratum].append(group)
    selected: set[int] = set()
    for groups in of_stratum.values():
        rows_left = round(share * sum(len(members[group]) for group in groups))
        for group in sorted(groups, key=lambda group: blake2b(f"{seed}-{members[group][0]}".encode(), digest_size=16).digest()):
            if len(members[group]) <= rows_left:
                rows_left -= len(members[group])
                selected.add(group)
    return selected


def _remove_leaking(members: Sequence[Sequence[int]], chosen: set[int], questions: Sequence[Example]) -> set[int]:
    """Remove test groups that nearly duplicate another row; repeated, because removed groups may nearly duplicate others."""
    group_of = {place: group for group, places in enumerate(members) for place in places}
    test_groups = set(chosen)
    while test_groups:
        items = [replace(questions[place], id=str(place)) for group in sorted(test_groups) for place in members[group]]
        training = (questions[place] for group, places in enumerate(members) if group not in test_groups for place in places)
        leaking = {group_of[int(leak.id)] for leak in find_leaks(items, training)}
        if not leaking:
            break
        test_groups -= leaking  # with fewer items the shared instruction may change, so all rows are compared again
    return test_groups
