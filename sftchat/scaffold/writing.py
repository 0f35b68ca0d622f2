"""Write a plugin project that installs, passes its own tests and trains, from the files in ``project/``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sftchat._util.files import atomic_folder, check_output_folder
from sftchat.errors import UsageError

NAME = re.compile(r"[a-z]([a-z0-9_-]*[a-z0-9])?")
MAX_NAME_LENGTH = 50
SOURCES = Path(__file__).parent / "project"

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
"""Files of a project, each with its source in ``SOURCES``."""


@dataclass(frozen=True)
class Names:
    """Names in a project.

    Attributes:
        task: Name of the task and of the entry point.
        version: Version of sftchat, such as ``0.1.0``.
        plugin_api: Version of the plugin interface.
    """

    task: str
    version: str
    plugin_api: int

    def __post_init__(self) -> None:
        """Refuse a name that is not valid for a task, a distribution and a package."""
        if not NAME.fullmatch(self.task) or "--" in self.task or len(self.task) > MAX_NAME_LENGTH:
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
        """The import package; its prefix avoids hiding a package named like the task."""
        return f"sftchat_{self.module}"

    @property
    def distribution(self) -> str:
        """The name of the distribution."""
        return self.package.replace("_", "-")

    @property
    def requirement(self) -> str:
        """The version range of sftchat: from this release to before the next that may change the interface."""
        major, minor, *_ = self.version.split(".")
        return f">={major}.{minor},<{major}.{int(minor) + 1}" if major == "0" else f">={major}.{minor},<{int(major) + 1}"


def write_project(names: Names, folder: Path) -> list[str]:
    """Write the project atomically; return its files, relative to the folder, in reading order.

    Args:
        names: Names in the project.
        folder: Folder of the project; must not exist.

    Raises:
        UsageError: When the folder exists or cannot be written.
    """
    check_output_folder(folder, must_be_new=True)
    texts = {path.format(package=names.package, module=names.module): _render(source, names) for path, source in FILES.items()}
    try:
        with atomic_folder(folder) as draft:
            for path, text in texts.items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                (draft / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the project cannot be written to '{folder}': {error.strerror or error}") from error
    return list(texts)


def _render(source: str, names: Names) -> str:
    """Render one file; slots are ``<< like this >>`` because Python, TOML and workflows use braces."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        variable_start_string="<<", variable_end_string=">>", undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    return environment.from_string((SOURCES / source).read_text(encoding="utf-8")).render(names=names)
