"""Writes the job of a gate for a CI service, from the templates in ``ci/``."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftchat._util.files import check_output_file, write_atomically, write_error
from sftchat.errors import UsageError

TEMPLATE_FOLDER = Path(__file__).parent / "ci"
CACHE = ".sftchat-cache"
"""Folder of the reply cache and of fetched models in a job, relative to the repository."""
REPORTS = ("--junit", "junit.xml", "--markdown", "report.md", "--html", "report.html")
"""Arguments of ``sftchat eval`` that a job adds."""
CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu"
LINE_WIDTH = 120
"""Width of the lines of the written command, in characters."""


@dataclass(frozen=True)
class Service:
    """A CI service.

    Attributes:
        template: Name of the template.
        default: File that the service reads.
        hint: What to do when that file exists already.
    """

    template: str
    default: str
    hint: str = ""


SERVICES = {
    "github": Service("github.yml.jinja", ".github/workflows/gate.yml"),
    "gitlab": Service(
        "gitlab.yml.jinja", ".gitlab-ci.yml", "; with -o gate.gitlab-ci.yml, add to .gitlab-ci.yml: include: gate.gitlab-ci.yml"
    ),
    "jenkins": Service("Jenkinsfile.jinja", "Jenkinsfile", "; with -o gate.Jenkinsfile, make it the script path of a job of its own"),
}
"""The services by name."""


@dataclass(frozen=True)
class GateJob:
    """What a job installs and runs.

    Attributes:
        words: Arguments of ``sftchat eval``, without those of ``REPORTS``.
        models: MODEL arguments that the job opens; empty when it scores stored replies.
        watched: Files and folders, relative to the repository, whose changes start the job; empty for all.
        extras: Extras of sftchat to install.
        distributions: Other distributions to install, such as a plugin's.
        fetched: Names of the models to fetch before, as for ``sftchat fetch``.
    """

    words: tuple[str, ...]
    models: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    fetched: tuple[str, ...] = ()

    @property
    def needs_key(self) -> bool:
        """Whether a model is behind a server, which may ask for a key."""
        return any(is_server(model) for model in self.models)

    @property
    def install(self) -> str:
        """The command that installs sftchat."""
        requirement = f"'sftchat[{','.join(self.extras)}]'" if self.extras else "sftchat"
        parts = ["pip install", requirement, *self.distributions, *((CPU_WHEELS,) if "local" in self.extras else ())]
        return " ".join(parts)

    @property
    def command(self) -> str:
        """The command of the gate, for a POSIX shell, on several lines."""
        groups: list[str] = ["sftchat eval"]
        for word in (*self.words, *REPORTS):
            is_option = re.match(r"--?[a-zA-Z]", word)
            if is_option:
                groups.append(shlex.quote(word))
            else:
                groups[-1] += f" {shlex.quote(word)}"
        lines = [groups[0]]
        for group in groups[1:]:
            if len(lines[-1]) + len(group) < LINE_WIDTH:
                lines[-1] += f" {group}"
            else:
                lines.append(f"  {group}")
        return " \\\n".join(lines)


def is_server(model: str) -> bool:
    """Return whether a MODEL is behind an OpenAI-compatible server."""
    return model.startswith(("http://", "https://"))


def extras_of(models: Iterable[str], plugin_schemes: Iterable[str]) -> tuple[str, ...]:
    """Return the extras of sftchat that the engines of models need.

    Args:
        models: MODEL arguments.
        plugin_schemes: Schemes of engines that plugins register; such a plugin brings its own dependencies.
    """
    extras = set()
    for model in models:
        if is_server(model):
            extras.add("endpoint")
        elif model.partition(":")[0] not in set(plugin_schemes):
            extras.add("local")
            extras |= {"gguf"} if model.lower().endswith(".gguf") else set()
            extras |= {"modelscope"} if model.startswith("ms://") else set()
    return tuple(sorted(extras))


def watched_paths(words: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns of the files and folders among words, for the filters of a service.

    Args:
        words: Arguments, some of which name existing files or folders; ``TASK=FILE`` counts too.

    Raises:
        UsageError: When one of them is not in the present folder, which is taken for the root of the repository.
    """
    patterns: dict[str, None] = {}
    for word in words:
        for name in dict.fromkeys((word, word.partition("=")[2])):
            path = Path(name)
            if not name or not path.exists():
                continue
            if path.is_absolute() or ".." in path.parts:
                raise UsageError(
                    f"'{name}' is not below this folder, so a CI job does not have it; run the command at the root of the repository"
                )
            text = re.sub(r"[*?+\[\]!(){}\\]", "*", path.as_posix())
            patterns[f"{text.rstrip('/')}/**" if path.is_dir() and text != "." else text] = None
    return tuple(pattern for pattern in patterns if pattern != ".")


def check_words(words: Sequence[str]) -> None:
    """Refuse arguments that a workflow cannot contain unchanged.

    Raises:
        UsageError: When an argument has a control character, such as a line break, or a text that the service would replace.
    """
    for word in words:
        if not word.isprintable():
            raise UsageError(
                f"argument {word[:40]!r} has a line break or a control character, which a workflow cannot hold; write it into a task file"
            )
        if "${{" in word:
            raise UsageError(f"argument '{word[:40]}' has '${{{{', which GitHub replaces; write it into a task file")


def write_workflow(service: str, job: GateJob, path: Path | None = None, *, overwrite: bool = False) -> Path:
    """Write the file of a job; return its path.

    Args:
        service: One of ``SERVICES``.
        job: The job.
        path: The file; by default the one that the service reads.
        overwrite: Whether to replace an existing file.

    Raises:
        UsageError: When the file exists, or an argument cannot stand in it.
        SftchatError: When it cannot be written.
    """
    check_words(job.words)
    file = path or Path(SERVICES[service].default)
    if path is None:
        if file.is_file() and not overwrite:
            raise UsageError(f"'{file}' exists; give --overwrite to replace it, or another name with -o{SERVICES[service].hint}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(file, error) from error
    check_output_file(file, overwrite=overwrite)
    try:
        write_atomically(file, render_workflow(service, job))
    except OSError as error:
        raise write_error(file, error) from error
    return file


def render_workflow(service: str, job: GateJob) -> str:
    """Return the text of the file of a job.

    Args:
        service: One of ``SERVICES``.
        job: The job.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        variable_start_string="<<", variable_end_string=">>", block_start_string="<%", block_end_string="%>",
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters["quoted"] = lambda text: json.dumps(text, ensure_ascii=False)  # YAML reads JSON's strings
    environment.filters["groovy"] = lambda text: text.replace("\\", "\\\\").replace("'", "\\'")
    source = (TEMPLATE_FOLDER / SERVICES[service].template).read_text(encoding="utf-8")
    return environment.from_string(source).render(job=job, cache=CACHE)
