"""Writes a plugin project that can be installed, tested and trained, from the templates in ``project/``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sftchat._util.files import atomic_folder, check_output_folder
from sftchat.errors import UsageError

TASK_NAME = re.compile(r"[a-z]([a-z0-9_-]*[a-z0-9])?")
MAX_NAME_LENGTH = 50
TEMPLATE_FOLDER = Path(__file__).parent / "project"

FILES = {
    "pyproject.toml": "pyproject.toml.jinja",
    "README.md": "README.md.jinja",
    ".gitignore": "gitignore.jinja",
    ".github/workflows/test.yml": "test.yml.jinja",
    "{package}/__init__.py": "package/__init__.py.jinja",
    "{package}/task.py": "package/task.py.jinja",
    "{package}/scorer.py": "package/scorer.py.jinja",
    "{package}/gold.jsonl": "package/gold.jsonl.jinja",
    "tests/test_{module}.py": "tests/test_task.py.jinja",
}
"""The template, in ``TEMPLATE_FOLDER``, of each file of a project."""


@dataclass(frozen=True)
class Names:
    """Values that are inserted into the files of a project.

    Attributes:
        task: Name of the task and of the entry point.
        version: Version of sftchat, such as ``0.1.0``.
        plugin_api: Version of the plugin interface.
    """

    task: str
    version: str
    plugin_api: int

    def __post_init__(self) -> None:
        """Raise ``UsageError`` for a name that is not valid for a task, a distribution and a package."""
        if not TASK_NAME.fullmatch(self.task) or "--" in self.task or len(self.task) > MAX_NAME_LENGTH:
            raise UsageError(
                f"plugin name '{self.task[: MAX_NAME_LENGTH + 1]}' must be at most {MAX_NAME_LENGTH} lower-case letters, digits, '-' and '_', "
                "starting with a letter and ending with a letter or digit, such as sentiment"
            )

    @property
    def module(self) -> str:
        """The task name as part of a Python name."""
        return self.task.replace("-", "_")

    @property
    def package(self) -> str:
        """The import package; the prefix avoids the name of another package."""
        return f"sftchat_{self.module}"

    @property
    def distribution(self) -> str:
        """The name of the distribution."""
        return self.package.replace("_", "-")

    @property
    def requirement(self) -> str:
        """The version range of sftchat: from this release to the next that may change the interface, excluded."""
        major, minor, *_ = self.version.split(".")
        next_incompatible = f"0.{int(minor) + 1}" if major == "0" else str(int(major) + 1)
        return f">={major}.{minor},<{next_incompatible}"


def write_project(names: Names, folder: Path) -> list[str]:
    """Write the project atomically; return its files, relative to the folder.

    Args:
        names: Names in the project.
        folder: Folder of the project; must not exist.

    Raises:
        UsageError: When the folder exists or cannot be written.
    """
    check_output_folder(folder, must_be_new=True)
    texts = {path.format(package=names.package, module=names.module): _render_file(source, names) for path, source in FILES.items()}
    try:
        with atomic_folder(folder) as draft:
            for path, text in texts.items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                (draft / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the project cannot be written to '{folder}': {error.strerror or error}") from error
    return list(texts)


def _render_file(source: str, names: Names) -> str:
    """Render one file; its placeholders are ``<< … >>``, because Python, TOML and workflows use braces."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        variable_start_string="<<", variable_end_string=">>", undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    return environment.from_string((TEMPLATE_FOLDER / source).read_text(encoding="utf-8")).render(names=names)
