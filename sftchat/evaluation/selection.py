"""Only some items of a gold set: those named, or those that failed or broke the last time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from sftchat.errors import DataError, UsageError
from sftchat.evaluation.baseline import is_baseline, read_baseline
from sftchat.evaluation.evalset import Evalset
from sftchat.evaluation.rules import parse_ids
from sftchat.parsing import parsed, read_text

Kind = Literal["newly-broken", "failing"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Selection:
    """Which items alone to evaluate, as typed.

    Attributes:
        words: Ids, or files with one id a line.
        only: What went wrong the last time.
        source: The output folder of an earlier evaluation, or a baseline; the baseline compared with when None.
    """

    words: tuple[str, ...] = ()
    only: Kind | None = None
    source: Path | None = None

    def ids(self, known: Collection[str], baseline: str | None = None) -> frozenset[str]:
        """The ids of the items; with both ways of selecting, those that both select.

        Args:
            known: The ids there are.
            baseline: What is compared with.

        Raises:
            UsageError: When an id is unknown or nothing is selected.
            DataError: When a file is malformed.
        """
        chosen = parse_ids(self.words, known, "--ids") if self.words else frozenset(known)
        if self.only is None:
            return chosen
        source = self.source or (Path(baseline) if baseline else None)
        if source is None:
            raise UsageError(f"--only {self.only} needs --from DIR, the folder of an earlier evaluation, or a --baseline FILE")
        return chosen & past_ids(self.only, source)


def select(evalsets: Sequence[Evalset], ids: Collection[str]) -> tuple[Evalset, ...]:
    """The gold sets with the items asked for alone; a set of which none is left is dropped.

    Raises:
        UsageError: When none is left at all.
    """
    kept = [replace(one, examples=tuple(example for example in one.examples if example.id in ids)) for one in evalsets]
    if not any(one.examples for one in kept):
        raise UsageError("none of the selected items is in the evalset")
    return tuple(one for one in kept if one.examples)


def past_ids(kind: Kind, source: Path) -> frozenset[str]:
    """Ids of the items that went wrong the last time.

    Args:
        kind: ``newly-broken`` since the baseline of that time, or all that were ``failing``.
        source: The output folder of an earlier evaluation, or, for ``failing``, a baseline file.

    Raises:
        UsageError: When the source cannot say.
        DataError: When it is malformed.
    """
    if source.is_file() and is_baseline(source):
        if kind == "newly-broken":
            raise UsageError(f"baseline {source} does not know what is newly broken; give the folder of an earlier evaluation with --from")
        return _some(kind, source, {identity for identity, item in read_baseline(source).items.items() if not item.right})
    report = source / "report.json"
    if not report.is_file():
        raise UsageError(f"'{source}' is neither the folder of an earlier evaluation nor a baseline")
    try:
        document = parsed(read_text(report))
        if kind == "newly-broken":
            return _some(kind, source, {identity for comparison in document["comparisons"] for identity in comparison["broken"]})
        # a name alone: what a report says must not lead out of its folder
        files = sorted({Path(result["replies"]).name for result in document["results"] if result.get("replies")})
        rows = [parsed(line) for file in files for line in read_text(source / file).split("\n") if line.strip()]
        return _some(kind, source, {row["id"] for row in rows if row.get("errors") or row.get("error")})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not the folder of an evaluation: {error}", str(source)) from error


def _some(kind: Kind, source: Path, ids: Collection[str]) -> frozenset[str]:
    """The ids, of which there must be one."""
    if not ids:
        raise UsageError(f"nothing in '{source}' is {kind.replace('-', ' ')}, so there is nothing to evaluate")
    return frozenset(ids)
