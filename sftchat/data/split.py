"""A file of rows in two parts, so that nothing in one is known from the other: groups stay whole, and leaks go to the training part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from sftchat.data.duplicates import key, prompt_text
from sftchat.data.leakage import find_leaks
from sftchat.data.values import abbreviate, keys_of
from sftchat.errors import DataError
from sftchat.types import Example, Message


@dataclass(frozen=True)
class Split:
    """Which rows are for testing.

    Attributes:
        test: Their places, from 0.
        groups: Groups of rows that were kept whole.
        moved: Rows that were chosen for testing and went to training, because a training row has nearly the same prompt.
    """

    test: frozenset[int]
    groups: int
    moved: int


def column_value(row: Mapping[str, Any], column: str, source: str) -> str:
    """The value of a column, also under ``metadata``, as text that tells values apart.

    Raises:
        DataError: The row has no such column.
    """
    inner = row.get("metadata")
    for place in (row, inner if isinstance(inner, Mapping) else {}):
        if column in place:
            return abbreviate(place[column], 1 << 20)
    raise DataError(f"there is no column {abbreviate(column)}; the row has the keys {keys_of(row)}", source)


def split(examples: Sequence[Example], test: float, seed: int, *, groups: Sequence[str] = (), strata: Sequence[str] = ()) -> Split:
    """Choose the rows for testing; the same rows and seed give the same choice.

    Rows with the same prompt are in one group. Of every stratum the groups are taken in the order of a hash of seed and group until its share is
    full. Rows whose prompt is nearly that of a training row then go to training with their group, until there is none.

    Args:
        examples: All rows.
        test: Share of the rows for testing, between 0 and 1, or how many, 1 and more.
        seed: Of the order of groups.
        groups: The group of every row; empty for groups of the same prompt alone.
        strata: The stratum of every row, of which each gives its share; empty for one.

    Raises:
        DataError: No row, or every row, would be for testing.
    """
    asked = [prompt_text(example) or example.gold or "" for example in examples]
    members = _groups([key(text) for text in asked], groups)
    share = test if test < 1 else test / len(examples)
    if share >= 1:
        raise DataError(f"--test is {test:g} of {len(examples)} rows, so none would be for training; give less")
    chosen = _chosen(members, strata, share, seed)
    if not chosen:
        smallest = min(map(len, members))
        raise DataError(f"--test {test:g} of {len(examples)} rows is less than the smallest group, which has {smallest}; give more")
    if len(chosen) == len(members):
        raise DataError(f"--test {test:g} of {len(examples)} rows leaves none for training; give less")
    questions = [replace(example, messages=(Message(role="user", content=text),)) for example, text in zip(examples, asked, strict=True)]
    kept = _without_leaks(members, chosen, questions)
    if not kept:
        raise DataError("no row is left for testing: the prompts of all that were chosen stand, or nearly, in the others")
    rows, before = ({place for group in some for place in members[group]} for some in (kept, chosen))
    return Split(frozenset(rows), len(members), len(before) - len(rows))


def _groups(prompts: Sequence[Any], groups: Sequence[str]) -> list[list[int]]:
    """The places of rows that must stay together, each group and the list in the order of the file."""
    leader = list(range(len(prompts)))

    def find(place: int) -> int:
        """The first row of the group of a row."""
        while leader[place] != place:
            leader[place] = place = leader[leader[place]]
        return place

    for names in (prompts, groups):
        first: dict[Any, int] = {}
        for place, name in enumerate(names):
            one, other = sorted((find(first.setdefault(name, place)), find(place)))
            leader[other] = one
    found: dict[int, list[int]] = defaultdict(list)
    for place in range(len(prompts)):
        found[find(place)].append(place)
    return list(found.values())


def _chosen(members: Sequence[Sequence[int]], strata: Sequence[str], share: float, seed: int) -> set[int]:
    """The groups for testing: of every stratum as many rows as its share."""
    of_stratum: dict[str, list[int]] = defaultdict(list)
    for group, places in enumerate(members):
        stratum = Counter(strata[place] for place in places).most_common(1)[0][0] if strata else ""
        of_stratum[stratum].append(group)
    chosen: set[int] = set()
    for groups in of_stratum.values():
        room = round(share * sum(len(members[group]) for group in groups))
        for group in sorted(groups, key=lambda group: blake2b(f"{seed}-{members[group][0]}".encode(), digest_size=16).digest()):
            if len(members[group]) <= room:
                room -= len(members[group])
                chosen.add(group)
    return chosen


def _without_leaks(members: Sequence[Sequence[int]], chosen: set[int], questions: Sequence[Example]) -> set[int]:
    """The groups that no other row is nearly the same as; what goes may be nearly the same as another, so until none is left."""
    group_of = {place: group for group, places in enumerate(members) for place in places}
    kept = set(chosen)
    while kept:
        items = [replace(questions[place], id=str(place)) for group in sorted(kept) for place in members[group]]
        training = (questions[place] for group, places in enumerate(members) if group not in kept for place in places)
        leaking = {group_of[int(leak.id)] for leak in find_leaks(items, training)}
        if not leaking:
            break
        kept -= leaking  # with fewer items another instruction may be left out, so all rows are compared again
    return kept
