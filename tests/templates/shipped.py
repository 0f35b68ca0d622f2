"""The chat templates of the installed TRL, and a tokenizer with the tokens that a template writes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SPEC = importlib.util.find_spec("trl")
assert _SPEC is not None
assert _SPEC.origin is not None
FOLDER = Path(_SPEC.origin).parent / "chat_templates"
SHIPPED = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
"""Sources by name."""


def _tiny_tokenizer() -> Callable[..., Any]:
    """``tokenizer_for`` of ``scripts/tiny_tokenizer.py``."""
    spec = importlib.util.spec_from_file_location("tiny_tokenizer", Path(__file__).parents[2] / "scripts" / "tiny_tokenizer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Any] = module.tokenizer_for
    return found


tokenizer_for = _tiny_tokenizer()
"""Byte-level tokenizer with the special tokens of a template; thought and call tags are tokens that a reply may contain."""
