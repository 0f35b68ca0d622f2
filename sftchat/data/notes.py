"""What reading a file has changed in its rows or left unused, counted, to be reported once for the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sftchat.data.values import abbreviate
from sftchat.text import counted


@dataclass
class Notes:
    """Changes and unused columns of the rows of one file.

    Attributes:
        changes: Rows by what was changed in them.
        columns: Rows by column that means nothing to the program; it is kept as metadata.
    """

    changes: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)

    def add(self, changes: Iterable[str], columns: Iterable[str]) -> None:
        """Count what was found in one row.

        Args:
            changes: Each once.
            columns: Each once.
        """
        self.changes.update(changes)
        self.columns.update(columns)

    def changes_told(self) -> list[str]:
        """One line for each change."""
        return [f"{counted(count, 'row')}: {what}" for what, count in self.changes.items()]

    def lines(self) -> list[str]:
        """One line for each change, and one for all columns."""
        lines = self.changes_told()
        if self.columns:
            listed = ", ".join(f"{abbreviate(name)} ({count:,})" for name, count in self.columns.most_common())
            lines.append(f"columns kept as metadata and not used: {listed}")
        return lines
