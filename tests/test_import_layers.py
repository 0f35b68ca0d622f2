"""Which package may import which, read from the source: the layers of docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "sftchat"

LAYERS = (
    ("types", "errors"),
    ("text",),
    ("_util", "thinking", "protocol"),
    ("engine", "task"),
    ("likelihood",),
    ("scorers",),
    ("templates", "data"),
    ("models",),
    ("inference",),
    ("evaluation",),
    ("training", "chat"),
    ("plugins",),
    ("api",),
    ("__init__",),
    ("testing", "scaffold"),
    ("cli",),
    ("__main__",),
)
"""From the lowest to the highest: a module imports its own package and lower layers."""

EXCEPTIONS = {
    ("chat", "api"),  # the package is callable: `sftchat.chat(MODEL)`
    ("chat", "plugins"),  # the built-in commands are a plugin
    ("chat", "__init__"),  # the version in written rows
}
"""Imports of a higher layer, from the first package to the second."""

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors", "tokenizers"}
HEAVY_PACKAGES = ("inference", "training", "models", "templates")
HEAVY_EXCEPTIONS = {
    ("sftchat.data.tables", "datasets"),
    ("sftchat.testing.degrade", "safetensors.torch.load_file"),
    ("sftchat.testing.degrade", "safetensors.torch.save_file"),
}
"""Modules that may import ``datasets``, for Parquet and the Hub, when such an input is given."""


def package(module: str) -> str:
    """The package or single module below ``sftchat`` that a module belongs to."""
    parts = module.split(".")[1:]
    return parts[0] if parts else "__init__"


def layer(name: str) -> int:
    return next(level for level, names in enumerate(LAYERS) if name in names)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(CORE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Everything imported anywhere in a module, for types alone (``TYPE_CHECKING``) included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imports(node)


def test_modules_import_only_their_own_and_lower_layers() -> None:
    broken = [
        f"{name} imports {imported}"
        for name, tree in modules()
        for imported in imports(tree)
        if imported.split(".")[0] == "sftchat" and not allowed(package(name), package(imported))
    ]

    assert broken == []


def allowed(here: str, there: str) -> bool:
    if not any(there in names for names in LAYERS):  # a name of the package itself, such as sftchat.hookimpl
        there = "__init__"
    return here == there or layer(there) < layer(here) or (here, there) in EXCEPTIONS


def test_heavy_libraries_are_imported_only_in_model_packages() -> None:
    broken = [
        f"{name} imports {imported}"
        for name, tree in modules()
        for imported in imports(tree)
        if imported.split(".")[0] in HEAVY and package(name) not in HEAVY_PACKAGES and (name, imported) not in HEAVY_EXCEPTIONS
    ]

    assert broken == []


def test_prompt_toolkit_is_imported_only_by_the_terminal_view_and_its_tests() -> None:
    found = {name for name, tree in modules() for imported in imports(tree) if imported.split(".")[0] == "prompt_toolkit"}

    assert {name.rpartition(".")[0] for name in found - {"sftchat.testing.terminal"}} == {"sftchat.chat.ui"}


def test_the_http_client_is_imported_only_by_the_endpoint_engine() -> None:
    found = {name for name, tree in modules() for imported in imports(tree) if imported.split(".")[0] in ("httpx2", "anyio")}

    assert {name.rpartition(".")[0] for name in found} == {"sftchat.inference.openai"}


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


PUBLIC = {*__import__("sftchat").__all__, "types", "text", "task", "errors", "scorers"}


LIGHT = [
    ["--help"],
    ["plugins"],
    ["data", "--help"],
    ["train", "--help"],
    ["eval", "--help"],
    ["cache"],
    ["chat", "--help"],
    ["new-plugin", "--help"],
    ["new-task", "--help"],
]


def run_light(words: list[str], *forbidden: str) -> tuple[int, str]:
    """Run a command in a separate process that fails on forbidden imports; returns exit code and stderr."""
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
