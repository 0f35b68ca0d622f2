"""The confusion table of a result, as the output formats share it."""

from __future__ import annotations

from dataclasses import dataclass

from sftchat.evaluation.confusion import Confusion, count_confusion
from sftchat.evaluation.results import ModelResult
from sftchat.text import pluralize

MAX_LABELS = 20
"""Maximum number of labels in a table; ``report.json`` has all."""
TITLE = "gold labels in rows, answers in columns"
NO_LABEL = "no label"
RARER_LABELS = "rarer"


@dataclass(frozen=True)
class ConfusionCell:
    """One count.

    Attributes:
        count: Number of items.
        right: Whether gold and answer are the same label.
        share: Share of the items of the row, from 0 to 1.
    """

    count: int
    right: bool
    share: float

    @property
    def text(self) -> str:
        """The count; a dot for 0, except where gold and answer are the same."""
        return str(self.count) if self.count or self.right else "·"

    @property
    def css_class(self) -> str:
        """Classes of the cell in the HTML page: ``right`` or ``wrong``, with the share in fifths; ``zero`` for a count of 0."""
        if not self.count:
            return "zero"
        return f"{'right' if self.right else 'wrong'} share-{min(5, 1 + int(5 * self.share))}"


@dataclass(frozen=True)
class ConfusionRow:
    """One gold label.

    Attributes:
        label: The label.
        cells: One count per column.
        precision: Share of the answers with this label that are right; None without such answers.
        recall: Share of the items with this gold label that are right; None without such items.
    """

    label: str
    cells: tuple[ConfusionCell, ...]
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class ConfusionTable:
    """The counts that a report shows.

    Attributes:
        columns: Names of the columns: labels, ``rarer`` for answers with a label that is not shown, ``no label``.
        rows: One per label as gold.
        left_out: Number of labels that are not shown.
    """

    columns: tuple[str, ...]
    rows: tuple[ConfusionRow, ...]
    left_out: int

    @property
    def note(self) -> str:
        """What the table leaves out; empty when it shows all."""
        return f"{pluralize(self.left_out, 'rarer label')} not shown, all in report.json" if self.left_out else ""


def confusion_table(result: ModelResult, max_labels: int = MAX_LABELS) -> ConfusionTable | None:
    """Return the confusion table of a result; None for a scorer without labels."""
    confusion = count_confusion(item.score for item in result.items)
    return None if confusion is None else build_table(confusion, max_labels)


def build_table(confusion: Confusion, max_labels: int) -> ConfusionTable:
    """Arrange the counts of the ``max_labels`` most frequent labels."""
    shown = confusion.labels[:max_labels]
    left_out = len(confusion.labels) - len(shown)
    rows = []
    for index, label in enumerate(shown):
        counts = [*confusion.counts[index][: len(shown)]]
        if left_out:
            counts.append(sum(confusion.counts[index][len(shown) :]))
        counts.append(confusion.unlabelled[index])
        gold, answered, right = sum(counts), sum(row[index] for row in confusion.counts), counts[index]
        cells = tuple(ConfusionCell(count, column == index, count / gold if gold else 0.0) for column, count in enumerate(counts))
        rows.append(ConfusionRow(label, cells, right / answered if answered else None, right / gold if gold else None))
    return ConfusionTable((*shown, *((RARER_LABELS,) if left_out else ()), NO_LABEL), tuple(rows), left_out)
