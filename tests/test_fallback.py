"""Private names of other libraries are used in few places, each with a fallback."""

from __future__ import annotations

import ast
from pathlib import Path

import prompt_toolkit.application
import pytest

from sftchat.chat.ui.scrollback import missing_parts

CORE = Path(__file__).parent.parent / "sftchat"
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "trl", "accelerate", "datasets", "prompt_toolkit", "rich", "click", "pluggy")
DOORS = {
    "inference/cpu.py": "the packed copy of the weights: undone by the same file",
    "inference/linears.py": "eight bits: undone by inference/cpu.py",
    "models/lazy_imports.py": "imports in parts: inference/open.py imports everything where they fail",
}
"""Files that may use private names of a library, with their fallback."""


def private_uses(path: Path) -> list[str]:
    """Private names that a file imports from a library, or reads from a module of one by its full name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in LIBRARIES:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = ast.unparse(node).split(".")
            if names[0] not in LIBRARIES:
                continue
        else:
            continue
        found += [".".join(names)] if any(name.startswith("_") and not name.startswith("__") for name in names) else []
    return found


def test_private_names_of_libraries_are_used_only_with_a_fallback() -> None:
    uses = {path.relative_to(CORE).as_posix(): private_uses(path) for path in sorted(CORE.rglob("*.py"))}

    assert {name for name, found in uses.items() if found} <= DOORS.keys()


def test_the_full_view_reports_what_a_newer_prompt_toolkit_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_parts() == ()

    monkeypatch.delattr(prompt_toolkit.application.Application, "_on_resize")

    assert missing_parts() == ("Application._on_resize",)
