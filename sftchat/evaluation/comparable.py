"""Whether today's evaluation may be compared with a baseline: the same task, sampling and items, scored as they were then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sftchat.errors import NotComparableError, listed
from sftchat.evaluation.baseline import Baseline, StoredItem, content_hash, known_sampling
from sftchat.evaluation.evalset import Evalset
from sftchat.evaluation.items import Item
from sftchat.task import Task
from sftchat.text import counted
from sftchat.types import Example, SamplingParams


def check_whole(baseline: Baseline, evalsets: Iterable[Evalset]) -> None:
    """Refuse a baseline that lacks items of a gold set which is, byte for byte, the one it was made from.

    Args:
        baseline: What was stored.
        evalsets: What is asked today.

    Raises:
        NotComparableError: When it does; names the items.
    """
    sizes = {evalset.sha256: evalset.size for evalset in baseline.header.evalsets if evalset.sha256}
    for evalset in evalsets:
        if evalset.sha256 not in sizes:
            continue
        if lacking := sorted(evalset.ids - baseline.items.keys()):
            raise NotComparableError(
                f"baseline {baseline.path} lacks {len(lacking)} of the {evalset.size} items of {evalset.name}, which has not changed since: "
                f"{listed(lacking)}; restore it, or write it anew with --update-baseline"
            )
        if sizes[evalset.sha256] != evalset.size:
            raise NotComparableError(
                f"baseline {baseline.path} counts {counted(sizes[evalset.sha256], 'item')} of {evalset.name}, which has {evalset.size} and "
                "has not changed since; restore it, or write it anew with --update-baseline"
            )


def check_comparable(baseline: Baseline, task: Task, examples: Sequence[Example], sampling: SamplingParams | None) -> None:
    """Refuse a comparison with what was measured differently.

    Items may have been added or removed since; an item that both have must be the same, and must be counted as it was then: counting again
    shows a changed scorer, whatever its version number says.

    Args:
        baseline: What was stored.
        task: What scores today.
        examples: What is asked today.
        sampling: How replies are generated today; None where nobody knows.

    Raises:
        NotComparableError: When something differs; says what.
    """
    header, path = baseline.header, baseline.path
    if header.task != task.name:
        raise NotComparableError(f"baseline {path} is of task '{header.task}', not of '{task.name}'")
    today = None if sampling is None else known_sampling(sampling)
    if today is not None and header.sampling is not None:
        for key in sorted({*today, *header.sampling}):
            then, now = header.sampling.get(key), today.get(key)
            if then != now:
                raise NotComparableError(f"baseline {path} was made with other sampling: {key} {then} then, {now} now")
    if not any(example.id in baseline.items for example in examples):
        names = ", ".join(evalset.name for evalset in header.evalsets)
        raise NotComparableError(f"baseline {path} is of another evalset ({names}): no item in common")
    other = [example.id for example in examples if example.id in baseline.items and not is_same(example, baseline.items[example.id])]
    if other:
        raise of_another_evalset(baseline, other)


def is_same(example: Example, item: StoredItem) -> bool:
    """Whether an example is what was asked then."""
    return content_hash(example) == item.content


def of_another_evalset(baseline: Baseline, ids: Sequence[str]) -> NotComparableError:
    """The error for items that are no longer what was asked then."""
    return NotComparableError(
        f"baseline {baseline.path} is of another evalset: prompt, gold reply or metadata of {listed(ids)} has changed"
    )


def check_counts(baseline: Baseline, items: Iterable[Item]) -> None:
    """Refuse a comparison with what another scorer counted.

    Args:
        baseline: What was stored.
        items: The stored replies, scored today.

    Raises:
        NotComparableError: When an item is counted differently; says which, and how.
    """
    for item in items:
        if error := recounted(baseline, item, baseline.items[item.example.id]):
            raise error


def recounted(baseline: Baseline, item: Item, stored: StoredItem) -> NotComparableError | None:
    """The error for an item that is counted otherwise than it was; None where it is not.

    Args:
        baseline: What was stored.
        item: The stored reply, scored today.
        stored: The item as it was.
    """
    then, now = stored.stats, item.score.stats
    key = None if now == then else next((key for key in sorted({*then, *now}) if then.get(key) != now.get(key)), None)
    if key is not None:
        what = f"'{key}' of item '{item.example.id}' was {_plain(then.get(key))} and is {_plain(now.get(key))}"
    elif item.right != stored.right:
        what = f"item '{item.example.id}' was {_verdict(stored.right)} and is {_verdict(item.right)}"
    else:
        return None
    return NotComparableError(f"baseline {baseline.path} was counted by another scorer: {what}; write it anew with --update-baseline")


def _verdict(right: bool) -> str:
    """Whether an item was without a fault, in a word."""
    return "right" if right else "wrong"


def _plain(count: float | None) -> str:
    """A count, or that there is none."""
    return "not counted" if count is None else f"{count:g}"
