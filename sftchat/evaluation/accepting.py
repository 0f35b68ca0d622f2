"""A model's replies become the new baseline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from sftchat.evaluation.baseline import SCHEMA_VERSION, Baseline, Header, content_hash, is_baseline, read_baseline
from sftchat.evaluation.items import Failure, Item, Outcome
from sftchat.evaluation.on_disk.scored import Scored, text_hash
from sftchat.evaluation.on_disk.stored import stored_baseline
from sftchat.evaluation.replies import HEADER, reply_rows, write_atomically


def write_baseline(path: Path, header: Header, items: Sequence[Item]) -> tuple[str, ...]:
    """Write a baseline, whole or not at all.

    Returns:
        What changed, in lines for the user.
    """
    old = None
    if is_baseline(path):
        old = stored_baseline(path)[0] if isinstance(items, Scored) else read_baseline(path)
    write_atomically(path, _lines(header, items))
    if old is None:
        return (f"baseline {path}: written, {len(items)} items of {header.model}",)
    return (", ".join((f"baseline {path}: {len(items)} items", *(list(_changed(old, items)) or ["nothing changed"]))),)


def _lines(header: Header, items: Sequence[Item]) -> Iterator[str]:
    """The whole file, line by line; the items sorted by id."""
    yield json.dumps({HEADER: SCHEMA_VERSION, **asdict(header)}, ensure_ascii=False) + "\n"
    yield from _sorted(items)


def _sorted(items: Sequence[Item]) -> Iterable[str]:
    """The lines of the items."""
    if isinstance(items, Scored):
        ids = items.ids
        return items.rendered(_line, sorted(range(len(ids)), key=ids.__getitem__))
    return map(_line, sorted(items, key=lambda item: item.example.id))


def _line(outcome: Outcome) -> str:
    """One item."""
    assert not isinstance(outcome, Failure)
    row = {**reply_rows(outcome), "right": outcome.right, "content": content_hash(outcome.example)}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _changed(old: Baseline, items: Sequence[Item]) -> Iterator[str]:
    """What a new baseline does to the old one."""
    new = _glimpses(items)
    facts = {"added": len(new.keys() - old.items.keys()), "removed": len(old.items.keys() - new.keys())}
    facts |= dict.fromkeys(("with another reply", "newly broken", "newly fixed"), 0)
    for identity, (right, said) in new.items():
        if identity in old.items:
            then = old.items[identity]
            facts["with another reply"] += text_hash(then.reply.text) != said
            facts["newly broken"] += then.right and not right
            facts["newly fixed"] += right and not then.right
    return (f"{count} {what}" for what, count in facts.items() if count)


def _glimpses(items: Sequence[Item]) -> Mapping[str, tuple[bool, int]]:
    """Whether each item is right, and a hash of what was said, by id."""
    if isinstance(items, Scored):
        figures = items.figures
        return dict(zip(items.ids, zip((figures.faults == 0).tolist(), figures.said.tolist(), strict=True), strict=True))
    return {item.example.id: (item.right, text_hash(item.reply.text)) for item in items}
