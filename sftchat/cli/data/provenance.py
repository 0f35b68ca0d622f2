"""``OUT.provenance.json``: where rows come from, beside every file that was filtered or synthesised."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def provenance_path(output: str) -> Path:
    """The name of the file beside an output."""
    return Path(f"{output}.provenance.json")


def write_provenance(output: str, made_by: str, inputs: Sequence[str], settings: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """Write what made an output; the same command over the same files writes the same bytes, so no time is in it.

    Args:
        output: The file that was written.
        made_by: Such as ``data filter``.
        inputs: Files that it was made of, or data sets of the Hub, which have no hash.
        settings: Everything that was chosen.
        counts: Rows by what became of them.
    """
    import sftchat
    from sftchat._util.files import write_atomically, write_error

    facts = {
        "made_by": made_by,
        "sftchat": sftchat.__version__,
        "command": "sftchat " + shlex.join(sys.argv[1:]),
        "inputs": [{"file": name, "sha256": _hash(name)} for name in inputs],
        "settings": settings,
        "counts": counts,
        "output": {"file": output, "sha256": _hash(output)},
    }
    path = provenance_path(output)
    try:
        write_atomically(path, json.dumps(facts, ensure_ascii=False, indent=2) + "\n", "strict")
    except OSError as error:
        raise write_error(path, error) from error


def _hash(name: str) -> str | None:
    """SHA-256 of a file; None of what is none."""
    from sftchat.models.fingerprint import file_hash

    return file_hash(Path(name)) if Path(name).is_file() else None
