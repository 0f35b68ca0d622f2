"""Who may import whom, read from the source: the rooms of docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "sftchat"

FLOORS = (
    ("types", "errors", "parsing"),
    ("third_party", "returned", "protocol"),
    ("task", "text", "thinking", "commands", "database", "folders", "locking", "fallback", "engines.base"),
    ("hookspecs", "output"),
    ("__init__", "plugins", "data", "models", "consoles"),
    ("engines", "training", "evaluation", "chat", "testing", "scaffold"),
    ("cli",),
    ("__main__",),
)
"""From the ground up: a room imports itself and what lies on lower floors."""

DOORS = {
    ("returned", "third_party"),
    ("thinking", "text"),
    ("engines.base", "thinking"),
    ("training", "evaluation"),
    ("training", "engines"),
    ("chat", "evaluation"),
    ("testing", "engines"),
    ("testing", "evaluation"),
    ("testing", "chat"),
}
"""Between rooms of one floor, from the first to the second."""

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors", "tokenizers"}
HEAVY_ROOMS = ("engines", "training", "models")
HEAVY_DOORS = {("sftchat.data.tables", "datasets")}
"""Parquet and the Hub are read through ``datasets``, so by that module alone, when such a file is given."""


def room(module: str) -> str:
    """The room that a module of the core belongs to: ``sftchat.engines.base`` is a room of its own."""
    parts = module.split(".")[1:]
    if parts[:2] == ["engines", "base"]:
        return "engines.base"
    return parts[0] if parts else "__init__"


def floor(name: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if name in rooms)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(CORE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Everything imported at run time anywhere in a module; what stands under TYPE_CHECKING is for the reader."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imports(node)


def test_data_flows_one_way_through_the_rooms() -> None:
    broken = [
        f"{name} imports {imported}"
        for name, tree in modules()
        for imported in imports(tree)
        if imported.split(".")[0] == "sftchat" and not allowed(room(name), room(imported))
    ]

    assert broken == []


def allowed(here: str, there: str) -> bool:
    if not any(there in rooms for rooms in FLOORS):  # a name of the package itself, such as sftchat.hookimpl
        there = "__init__"
    return here == there or floor(there) < floor(here) or (here, there) in DOORS


def test_heavy_libraries_are_imported_only_where_models_live() -> None:
    broken = [
        f"{name} imports {imported}"
        for name, tree in modules()
        for imported in imports(tree)
        if imported.split(".")[0] in HEAVY and room(name) not in HEAVY_ROOMS and (name, imported) not in HEAVY_DOORS
    ]

    assert broken == []


def test_prompt_toolkit_is_imported_only_by_the_terminal_and_by_what_tests_it() -> None:
    found = {name for name, tree in modules() for imported in imports(tree) if imported.split(".")[0] == "prompt_toolkit"}

    assert {name.rpartition(".")[0] for name in found - {"sftchat.testing.terminal"}} == {"sftchat.chat.terminal"}


def test_the_http_client_is_imported_only_by_the_endpoint_engine() -> None:
    found = {name for name, tree in modules() for imported in imports(tree) if imported.split(".")[0] in ("httpx2", "anyio")}

    assert {name.rpartition(".")[0] for name in found} == {"sftchat.engines.endpoint"}


def test_the_core_names_no_first_party_plugin() -> None:
    names = sorted(path.name for path in (ROOT / "plugins").iterdir() if path.name.startswith("sftchat_"))
    named = [str(path) for path in CORE.rglob("*.py") for name in names if name in path.read_text(encoding="utf-8")]

    assert named == []


def test_a_plugin_imports_the_public_names_and_no_other_plugin() -> None:
    broken = []
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        own = path.relative_to(ROOT / "plugins").parts[0]
        for imported in imports(ast.parse(path.read_text(encoding="utf-8"))):
            top = imported.split(".")[0]
            private = top == "sftchat" and imported.split(".")[1] not in PUBLIC
            if private or (top.startswith("sftchat_") and top != own):
                broken.append(f"{path.name} imports {imported}")

    assert broken == []


PUBLIC = {*__import__("sftchat").__all__, "types", "text", "task", "errors"}


LIGHT = [
    ["--help"],
    ["plugins"],
    ["data", "--help"],
    ["train", "--help"],
    ["eval", "--help"],
    ["cache"],
    ["chat", "--help"],
    ["new-plugin", "--help"],
]


def run_light(words: list[str], *forbidden: str) -> tuple[int, str]:
    """Run a command in a process of its own and fail it when it has imported what it must not; returns exit code and stderr."""
    program = (
        "import sys\nfrom sftchat.cli import main\n"
        f"code = main({words!r})\n"
        f"heavy = sorted({set(forbidden)!r} & set(sys.modules))\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", LIGHT)
def test_light_commands_load_no_heavy_library(words: list[str]) -> None:
    assert run_light(words, *HEAVY, "prompt_toolkit", "numpy", "scipy", "httpx2", "anyio") == (0, "")
