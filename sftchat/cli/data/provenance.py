"""Writes ``OUT.provenance.json``: how a filtered, split or synthesised file was made."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def provenance_path(output: str) -> Path:
    """Return the provenance file of an output."""
    return Path(f"{output}.provenance.json")


def write_provenance(output: str, made_by: str, inputs: Sequence[str], settings: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """Write the provenance of an output. It contains no time, so that the same command on the same files writes the same bytes.

    Args:
        output: The written file.
        made_by: The command, such as ``data filter``.
        inputs: Input files, or data sets of the Hub, which have no hash.
        settings: Options of the command.
        counts: Number of rows by outcome.
    """
    import sftchat
    from sftchat._util.files import write_atomically, write_error

    provenance = {
        "made_by": made_by,
        "sftchat": sftchat.__version__,
        "command": "sftchat " + shlex.join(sys.argv[1:]),
        "inputs": [{"file": name, "sha256": _hash_if_file(name)} for name in inputs],
        "settings": settings,
        "counts": counts,
        "output": {"file": output, "sha256": _hash_if_file(output)},
    }
    path = provenance_path(output)
    try:
        write_atomically(path, json.dumps(provenance, ensure_ascii=False, indent=2) + "\n", "strict")
    except OSError as error:
        raise write_error(path, error) from error


def _hash_if_file(name: str) -> str | None:
    from sftchat.models.fingerprint import file_hash

    return file_hash(Path(name)) if Path(name).is_file() else None
