"""Options for reading rows, shared by all commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sftchat._util.parsing import from_json
from sftchat.errors import DataError, UsageError, unknown

NAMES = (
    "messages", "conversations", "prompt", "completion", "chosen", "rejected", "instruction", "input", "output", "system", "history", "text", "gold",
    "tools", "id", "label",
)  # fmt: skip
"""Column names by which formats are detected; valid names of ``--map NAME=COLUMN``."""

Change = Callable[[str], None]
"""Called with one line that describes a change made while reading a row."""


def unreported(_: str) -> None:
    """Report no change."""


@dataclass(frozen=True)
class RowOptions:
    """Options for reading rows; the defaults read rows unchanged.

    Attributes:
        roles: Additional role names, such as ``{"narrator": "user"}``.
        columns: The column to read for a name of ``NAMES``, such as ``{"prompt": "question"}``.
        label_column: Column whose value becomes the reply, for rows of text and label; empty for none.
        label_instruction: Instruction before the text of such rows; empty for none.
        merge_turns: Join consecutive turns of the same role.
        leading_assistant: ``refuse`` rows that start with an assistant turn, or ``drop`` those turns.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    label_column: str = ""
    label_instruction: str = ""
    merge_turns: bool = False
    leading_assistant: str = "refuse"

    def __post_init__(self) -> None:
        """Check that an instruction comes with a label column.

        Raises:
            UsageError: When an option is missing; names it.
        """
        if self.label_instruction and not self.label_column:
            raise UsageError("--label-instruction stands in front of the text of labelled rows; give --label-column as well")

    @property
    def given(self) -> dict[str, Any]:
        """Return the non-default options for a manifest; ``RowOptions(**given)`` restores them."""
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in vars(self).items()
            if value != getattr(AS_WRITTEN, name)
        }


AS_WRITTEN = RowOptions()
"""Default options: read rows unchanged."""


def recorded_options(source: Mapping[str, Any]) -> RowOptions:
    """Return the options with which a training file was read, from the training manifest.

    Args:
        source: Entry of the file in the manifest.

    Raises:
        DataError: When the manifest is damaged.
    """
    try:
        return from_json(RowOptions, source.get("rows_read", {}))
    except ValueError as error:
        raise DataError(f"the manifest says nothing usable about how its rows were read: {error}", str(source.get("file", ""))) from error


def column_map(pairs: Iterable[str]) -> dict[str, str]:
    """Parse ``--map NAME=COLUMN``.

    Raises:
        UsageError: When a pair has no ``=``, a name is unknown, or a name or column is given twice.
    """
    columns: dict[str, str] = {}
    for pair in pairs:
        name, equals, column = pair.partition("=")
        if not equals or not name or not column:
            raise UsageError(f"map '{pair}' must be NAME=COLUMN, such as prompt=question")
        if name not in NAMES:
            raise UsageError(unknown("name of a column", name, NAMES))
        if name in columns or column in columns.values():
            raise UsageError(f"map '{pair}' gives {'a name' if name in columns else 'a column'} twice; give each once")
        columns[name] = column
    return columns
