"""Changes made and columns unused while reading a file, counted for one report per file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sftchat.data.values import abbreviate
from sftchat.text import counted


@dataclass
class Notes:
    """Changes and unused columns of one file.

    Attributes:
        changes: Number of rows by change.
        columns: Number of rows by unknown column; such columns are kept as metadata.
    """

    changes: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)

    def add(self, changes: Iterable[str], columns: Iterable[str]) -> None:
        """Count the changes and unused columns of one row.

        Args:
            changes: Without duplicates.
            columns: Without duplicates.
        """
        self.changes.update(changes)
        self.columns.update(columns)

    def changes_told(self) -> list[str]:
        """Return one line for each change."""
        return [f"{counted(count, 'row')}: {what}" for what, count in self.changes.items()]

    def lines(self) -> list[str]:
        """Return one line for each change, and one for all unused columns."""
        lines = self.changes_told()
        if self.columns:
            listed = ", ".join(f"{abbreviate(name)} ({count:,})" for name, count in self.columns.most_common())
            lines.append(f"columns kept as metadata and not used: {listed}")
        return lines
