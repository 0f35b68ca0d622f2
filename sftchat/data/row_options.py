"""How the rows of a file are to be read: what the options of every command that reads rows say."""

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
"""The names of columns that rows are recognised by: what ``--map NAME=COLUMN`` may give."""

Change = Callable[[str], None]
"""Takes one line on what reading a row has changed in it."""


def unreported(_: str) -> None:
    """Report no change."""


@dataclass(frozen=True)
class RowOptions:
    """Options of reading rows; the default reads rows as they are.

    Attributes:
        roles: Further names of roles, such as ``{"narrator": "user"}``.
        columns: The column that is read under a name of ``NAMES``, such as ``{"prompt": "question"}``.
        label_column: The column whose value becomes the reply, for rows of text and label; empty for none.
        label_instruction: The instruction in front of the text of such rows; empty for none.
        merge_turns: Join consecutive turns of one role.
        leading_assistant: ``refuse`` rows that begin with an assistant turn, or ``drop`` those turns.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    label_column: str = ""
    label_instruction: str = ""
    merge_turns: bool = False
    leading_assistant: str = "refuse"

    def __post_init__(self) -> None:
        """Refuse an instruction without labels.

        Raises:
            UsageError: Naming the option that is missing.
        """
        if self.label_instruction and not self.label_column:
            raise UsageError("--label-instruction stands in front of the text of labelled rows; give --label-column as well")

    @property
    def given(self) -> dict[str, Any]:
        """The options that are not the default, for a manifest; ``RowOptions(**given)`` makes them again."""
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in vars(self).items()
            if value != getattr(AS_WRITTEN, name)
        }


AS_WRITTEN = RowOptions()
"""Read rows as they are."""


def recorded_options(source: Mapping[str, Any]) -> RowOptions:
    """The options that a file of rows was read with, from the manifest of the training.

    Args:
        source: The file's entry in the manifest.

    Raises:
        DataError: The manifest is damaged.
    """
    try:
        return from_json(RowOptions, source.get("rows_read", {}))
    except ValueError as error:
        raise DataError(f"the manifest says nothing usable about how its rows were read: {error}", str(source.get("file", ""))) from error


def column_map(pairs: Iterable[str]) -> dict[str, str]:
    """Read ``--map NAME=COLUMN``.

    Raises:
        UsageError: For a pair without ``=``, a name that no row is recognised by, and a name or column given twice.
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
