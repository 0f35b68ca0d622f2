"""The program ``ollama``: found before an export, and run on its Modelfile."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

from sftchat.errors import SftchatError, UsageError

MODELFILE = "Modelfile"
NAME = re.compile(r"[\w.][\w./:-]*", re.ASCII)
"""Names of models in Ollama: ``[HOST/][NAMESPACE/]MODEL[:TAG]``."""


def create_command(folder: Path, name: str) -> str:
    """Return the command, for a shell, that makes a model of Ollama from an exported folder."""
    return f"cd {shlex.quote(str(folder))} && ollama create {shlex.quote(name)} -f {MODELFILE}"


def find_ollama(folder: Path, name: str) -> str:
    """Return the path of the program, before an export into ``folder``.

    Raises:
        UsageError: When the name is not allowed, or the program is not on the PATH; names the command to run elsewhere.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"--create is '{name}', must be a name for Ollama such as org/model:tag, of letters, digits and ._-/:")
    program = shutil.which("ollama")
    if program is None:
        raise UsageError(
            f"--create needs the program 'ollama', which is not on the PATH; leave it out, and where ollama is, type: {create_command(folder, name)}"
        )
    return program


def create_in_ollama(program: str, folder: Path, name: str) -> None:
    """Make a model of Ollama from the Modelfile in a folder; the program's output goes to standard error.

    Args:
        program: Path of ``ollama``.
        folder: Folder with the Modelfile.
        name: Name of the model in Ollama.

    Raises:
        SftchatError: When the program cannot be started, or fails.
    """
    try:
        completed = subprocess.run([program, "create", name, "-f", MODELFILE], cwd=folder, stdin=subprocess.DEVNULL, stdout=2, check=False)
    except OSError as error:
        raise SftchatError(f"'{program}' cannot be started: {error.strerror}; the files are in {folder}") from error
    if completed.returncode:
        raise SftchatError(
            f"'ollama create {name}' failed with exit code {completed.returncode}; the files are in {folder}, to try again: "
            f"{create_command(folder, name)}"
        )
