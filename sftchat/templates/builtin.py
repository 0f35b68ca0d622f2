"""The built-in chat templates: for models without a template, or in place of the model's own."""

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
"""Valid names of a model's own templates; each is also a file name."""
_MARKER = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")


@dataclass(frozen=True)
class Template:
    """A named chat template.

    Attributes:
        name: Value of ``--template``; the source is ``chat_templates/NAME.jinja``.
        about: Short description.
        tokens: Added tokens that the tokenizer must have. A template without any ends a reply with the tokenizer's end-of-text token.
        source: Its Jinja source.
    """

    name: str
    about: str
    tokens: tuple[str, ...]
    source: str

    def fits(self, tokenizer: Any) -> bool:
        """Whether every token that the template writes is a single token of the tokenizer."""
        return set(self.tokens) <= set(tokenizer.added_tokens_encoder)

    def source_for(self, tokenizer: Any) -> str:
        """Return the source, prefixed with the BOS token if the tokenizer always adds one: such models were trained only with it."""
        if "bos_token" in self.source or getattr(tokenizer, "bos_token_id", None) is None:
            return self.source
        return "{{- bos_token }}\n" + self.source if tokenizer.encode("")[:1] == [tokenizer.bos_token_id] else self.source


def _read(name: str, about: str, *tokens: str) -> Template:
    """Load a template from the package."""
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
"""All templates by name. The rows of ``instruction`` and ``alpaca`` mark context by the key ``context`` of a user turn."""


def template_file(template: str) -> Path | None:
    """Return the Jinja file that a template argument refers to; also expands ``~``.

    Args:
        template: A name of ``TEMPLATES``, a file, or an empty string.

    Returns:
        None for a name, which takes precedence over a file of that name, and for an empty string.

    Raises:
        UsageError: When it is neither a name nor a file.
    """
    if not template or template in TEMPLATES:
        return None
    path = path_of(template)
    try:
        found = path.is_file()
    except OSError:  # an invalid file name, for which Python before 3.14 raises
        found = False
    if not found:
        raise UsageError(unknown("chat template", template, TEMPLATES) + ", or the path of a Jinja file")
    return path


def without_training_markers(source: str) -> str:
    """Remove ``{% generation %}`` tags, which only transformers supports; the output does not change."""
    return _MARKER.sub(r"{#\1 \2#}", source)
