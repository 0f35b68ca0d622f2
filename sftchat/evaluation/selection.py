"""Restriction of an evaluation to some items: by their ids, or those that went wrong in an earlier evaluation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from sftchat._util.parsing import load_json, read_text
from sftchat.errors import DataError, UsageError
from sftchat.evaluation.baseline import is_baseline, read_baseline
from sftchat.evaluation.evalset import Evalset, parse_ids

REPORT = "report.json"
"""Name of the report in an output folder."""
PastProblem = Literal["newly-broken", "failing"]
PAST_PROBLEMS: tuple[PastProblem, ...] = get_args(PastProblem)


@dataclass(frozen=True)
class Selection:
    """Restriction of an evaluation to some items, as typed.

    Attributes:
        words: Ids, or files with one id per line.
        only: Select the items that failed or broke in an earlier evaluation.
        source: Output folder of that evaluation, or a baseline file; None for the baseline of this evaluation.
    """

    words: tuple[str, ...] = ()
    only: PastProblem | None = None
    source: Path | None = None

    def ids(self, all_ids: Collection[str], baseline: str | None = None) -> frozenset[str]:
        """Return the selected ids: the intersection when both ways of selecting are used.

        Args:
            all_ids: All ids of the evalsets.
            baseline: Baseline of this evaluation.

        Raises:
            UsageError: When an id is unknown or nothing is selected.
            DataError: When a file is malformed.
        """
        selected = parse_ids(self.words, all_ids, "--ids") if self.words else frozenset(all_ids)
        if self.only is None:
            return selected
        source = self.source or (Path(baseline) if baseline else None)
        if source is None:
            raise UsageError(f"--only {self.only} needs --from DIR, the folder of an earlier evaluation, or a --baseline FILE")
        return selected & past_ids(self.only, source)


def select_items(evalsets: Sequence[Evalset], ids: Collection[str]) -> tuple[Evalset, ...]:
    """Restrict evalsets to some items; an evalset without a selected item is dropped.

    Raises:
        UsageError: When no item is left.
    """
    restricted = [replace(evalset, examples=tuple(example for example in evalset.examples if example.id in ids)) for evalset in evalsets]
    selected = tuple(evalset for evalset in restricted if evalset.examples)
    if not selected:
        raise UsageError("none of the selected items is in the evalset")
    return selected


def past_ids(problem: PastProblem, source: Path) -> frozenset[str]:
    """Return the ids of items that went wrong in an earlier evaluation.

    Args:
        problem: ``newly-broken`` since the baseline of that evaluation, or all ``failing``.
        source: Output folder of that evaluation or, for ``failing``, a baseline file.

    Raises:
        UsageError: When the source does not contain this information, or no item went wrong.
        DataError: When it is malformed.
    """
    if not (source.is_file() and is_baseline(source)):
        ids = _past_ids_of_folder(problem, source)
    elif problem == "failing":
        ids = {item_id for item_id, item in read_baseline(source).items.items() if not item.right}
    else:
        raise UsageError(f"baseline {source} does not record what is newly broken; give the folder of an earlier evaluation with --from")
    if not ids:
        raise UsageError(f"nothing in '{source}' is {problem.replace('-', ' ')}, so there is nothing to evaluate")
    return frozenset(ids)


def _past_ids_of_folder(problem: PastProblem, folder: Path) -> set[str]:
    report = folder / REPORT
    if not report.is_file():
        raise UsageError(f"'{folder}' is neither the folder of an earlier evaluation nor a baseline")
    try:
        document = load_json(read_text(report))
        if problem == "newly-broken":
            return {item_id for comparison in document["comparisons"] for item_id in comparison["broken"]}
        # base name only: a path in the report must not lead out of its folder
        files = sorted({Path(result["replies"]).name for result in document["results"] if result.get("replies")})
        rows = [load_json(line) for file in files for line in read_text(folder / file).split("\n") if line.strip()]
        return {row["id"] for row in rows if row.get("errors") or row.get("error") or row.get("not_judged")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not the folder of an evaluation: {error}", str(folder)) from error
