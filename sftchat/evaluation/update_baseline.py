"""Write a model's replies as the new baseline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from sftchat._util.files import write_atomically
from sftchat.errors import DataError, NotComparableError
from sftchat.evaluation.baseline import SCHEMA_VERSION, Baseline, Header, content_hash, is_baseline, read_baseline
from sftchat.evaluation.replies import HEADER, reply_rows
from sftchat.evaluation.run import Item
from sftchat.evaluation.scored import ScoredItems, text_hash
from sftchat.text import pluralize


def write_baseline(path: Path, header: Header, items: ScoredItems) -> tuple[str, ...]:
    """Write a baseline atomically.

    Args:
        path: Path of the file; an existing baseline is replaced.
        header: First line of the file.
        items: Scored items of the whole evalsets.

    Returns:
        Lines for the user that describe what changed.
    """
    told = [f"written, {pluralize(len(items), 'item')} of {header.model}"]
    try:
        old = read_baseline(path) if is_baseline(path) else None
    except (DataError, NotComparableError) as error:  # an unreadable baseline may be the reason for the update
        old = None
        told.append(f"in place of one that could not be read ({error})")
    if old is not None:
        told = [pluralize(len(items), "item"), *(list(_changed(old, items)) or ["nothing changed"])]
    write_atomically(path, _lines(header, items))
    return (f"baseline {path}: {', '.join(told)}",)


def _lines(header: Header, items: ScoredItems) -> Iterator[str]:
    """Yield the lines of the file; the items are sorted by id."""
    yield json.dumps({HEADER: SCHEMA_VERSION, **asdict(header)}, ensure_ascii=False) + "\n"
    yield from map(_line, sorted(items, key=lambda item: item.example.id))


def _line(item: Item) -> str:
    row = {**reply_rows(item), "right": item.right, "content": content_hash(item.example)}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _changed(old: Baseline, items: ScoredItems) -> Iterator[str]:
    """Yield the lines that describe the changes from the old baseline."""
    figures = items.figures
    new = dict(zip(items.ids, zip((figures.faults == 0).tolist(), figures.said.tolist(), strict=True), strict=True))
    facts = {"added": len(new.keys() - old.items.keys()), "removed": len(old.items.keys() - new.keys())}
    facts |= dict.fromkeys(("with another reply", "newly broken", "newly fixed"), 0)
    for identity, (right, said) in new.items():
        if identity in old.items:
            then = old.items[identity]
            facts["with another reply"] += text_hash(then.reply.text) != said
            facts["newly broken"] += then.right and not right
            facts["newly fixed"] += right and not then.right
    return (f"{count} {what}" for what, count in facts.items() if count)
