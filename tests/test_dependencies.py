"""Declared dependencies are the imported ones."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
USED_BY_LIBRARIES = {
    "accelerate": "the trainers of TRL and transformers",
    "tensorboard": "the logs of a training",
    "bitsandbytes": "quantised base models in transformers",
    "mkdocs-material": "the site of the docs",
}
"""Declared packages that are not imported, with the reason."""


def name_of(requirement: str) -> str:
    """Return the normalised name of a requirement."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]).lower()


def imported() -> Iterator[str]:
    """Every third-party module that is imported by the package and the first-party plugins."""
    for path in [*(ROOT / "sftchat").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0]


def test_every_imported_package_is_declared_and_every_declared_one_is_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {name_of(text) for group in (project["dependencies"], *project["optional-dependencies"].values()) for text in group}
    distributions = packages_distributions()
    modules = {name for name in imported() if name not in sys.stdlib_module_names and not name.startswith("sftchat")}

    used = {name_of(distributions[module][0]) for module in modules}

    assert declared == used | USED_BY_LIBRARIES.keys()
