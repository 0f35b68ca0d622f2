"""The chat templates that come with sftchat, by name: for models that have none of their own, or instead of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat._util.parsing import path_of
from sftchat.errors import UsageError, unknown

FOLDER = Path(__file__).parent / "chat_templates"
NAME = re.compile(r"[\w.-]{1,64}")
"""What a model may call one of several templates, since each is a file of that name."""
_MARKER = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")


@dataclass(frozen=True)
class Template:
    """A chat template with a name.

    Attributes:
        name: What ``--template`` takes; the source is ``chat_templates/NAME.jinja``.
        about: What it writes, in a few words.
        tokens: Added tokens that a tokenizer must have for it. A template without any ends a reply with the tokenizer's own end of text.
        source: Its Jinja source.
    """

    name: str
    about: str
    tokens: tuple[str, ...]
    source: str

    def fits(self, tokenizer: Any) -> bool:
        """Whether every marker that the template writes is a token of its own for this tokenizer."""
        return set(self.tokens) <= set(tokenizer.added_tokens_encoder)

    def source_for(self, tokenizer: Any) -> str:
        """The source, with the beginning of text in front for a tokenizer that puts it before any text: such models have never seen a prompt without."""
        if "bos_token" in self.source or getattr(tokenizer, "bos_token_id", None) is None:
            return self.source
        return "{{- bos_token }}\n" + self.source if tokenizer.encode("")[:1] == [tokenizer.bos_token_id] else self.source


def _read(name: str, about: str, *tokens: str) -> Template:
    """A template of the folder."""
    return Template(name, about, tokens, (FOLDER / f"{name}.jinja").read_text(encoding="utf-8"))


TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        _read("chatml", "<|im_start|>role … <|im_end|>", "<|im_start|>", "<|im_end|>"),
        _read("llama3", "<|start_header_id|>role<|end_header_id|> … <|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        _read("alpaca", "### Instruction, ### Input, ### Response, after Stanford Alpaca's opening sentence"),
        _read("instruction", "### Instruction, ### Context, ### Response"),
        _read("prompt", "### Prompt, ### Response"),
        _read("plain", "System: …, User: …, Assistant: …"),
    )
}
"""Every template by name. The rows of ``instruction`` and ``alpaca`` tell context from instruction by the key ``context`` of a user turn."""


def template_file(template: str) -> Path | None:
    """The Jinja file that a template argument means: the one place where it is decided, and where ``~`` is expanded.

    Args:
        template: A name of ``TEMPLATES``, a file, or empty for none.

    Returns:
        None for a name, which goes before a file of that name, and for none.

    Raises:
        UsageError: When it is neither a name nor a file.
    """
    if not template or template in TEMPLATES:
        return None
    path = path_of(template)
    try:
        found = path.is_file()
    except OSError:  # a name that no system takes, which Python before 3.14 raises
        found = False
    if not found:
        raise UsageError(unknown("chat template", template, TEMPLATES) + ", or the path of a Jinja file")
    return path


def without_training_markers(source: str) -> str:
    """The source without ``{% generation %}`` and its end, which only transformers understands; what it writes stays the same."""
    return _MARKER.sub(r"{#\1 \2#}", source)
