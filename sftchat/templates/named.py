"""Chat templates by name: the built-in ones, and those of a model that has several, such as ``default`` and ``tool_use``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat._util.parsing import expand_user
from sftchat.errors import TemplateError, UsageError, unknown_name_message

TEMPLATE_FOLDER = Path(__file__).parent / "chat_templates"
TEMPLATE_NAME = re.compile(r"[\w.-]{1,64}")
"""Valid names of a model's own templates; each is also a file name."""
_TRAINING_MARKER = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")
"""The tags ``{% generation %}`` and ``{% endgeneration %}``, with their whitespace controls."""


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
        """Return the source, with a BOS token at its start if the tokenizer always adds one: such models were trained only with it."""
        bos_id = getattr(tokenizer, "bos_token_id", None)
        if "bos_token" in self.source or bos_id is None or tokenizer.encode("")[:1] != [bos_id]:
            return self.source
        return "{{- bos_token }}\n" + self.source


def _load_template(name: str, about: str, *tokens: str) -> Template:
    return Template(name, about, tokens, (TEMPLATE_FOLDER / f"{name}.jinja").read_text(encoding="utf-8"))


TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        _load_template("chatml", "<|im_start|>role … <|im_end|>", "<|im_start|>", "<|im_end|>"),
        _load_template(
            "llama3", "<|start_header_id|>role<|end_header_id|> … <|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
        ),
        _load_template("alpaca", "### Instruction, ### Input, ### Response, after Stanford Alpaca's opening sentence"),
        _load_template("instruction", "### Instruction, ### Context, ### Response"),
        _load_template("prompt", "### Prompt, ### Response"),
        _load_template("plain", "System: …, User: …, Assistant: …"),
    )
}
"""All built-in templates by name. In a user turn, ``instruction`` and ``alpaca`` also render the key ``context``."""


def template_file(template: str) -> Path | None:
    """Return the Jinja file to which a value of ``--template`` refers, with ``~`` expanded.

    Args:
        template: A name of ``TEMPLATES``, a file, or an empty string.

    Returns:
        None for a name, which takes precedence over a file of that name, and for an empty string.

    Raises:
        UsageError: When it is neither a name nor a file.
    """
    if not template or template in TEMPLATES:
        return None
    path = expand_user(template)
    with suppress(OSError):  # an invalid file name, for which Python before 3.14 raises
        if path.is_file():
            return path
    raise UsageError(unknown_name_message("chat template", template, TEMPLATES) + ", or the path of a Jinja file")


def without_training_markers(source: str) -> str:
    """Remove ``{% generation %}`` tags, which only transformers supports; the output does not change."""
    return _TRAINING_MARKER.sub(r"{#\1 \2#}", source)


DEFAULT = "default"
"""Name of the template for conversations without tools."""
TOOL_USE = "tool_use"
"""Name of the template for conversations with tools, as in transformers' ``get_chat_template``."""


def own_templates(tokenizer: Any) -> dict[str, str]:
    """Return the chat templates of a tokenizer by name, without training markers.

    Args:
        tokenizer: A transformers tokenizer; its ``chat_template`` is a string, or a dict of strings by name.

    Returns:
        A single template under ``default``; empty if there is none.

    Raises:
        TemplateError: When one is not text, or its name is not a valid file name.
    """
    own = tokenizer.chat_template
    templates = {}
    for name, source in (own if isinstance(own, Mapping) else {DEFAULT: own}).items():
        if not source:
            continue
        if not (isinstance(name, str) and TEMPLATE_NAME.fullmatch(name)):
            raise TemplateError(f"the model has a chat template named {name!r:.40}; a name has letters, digits, '_', '-' and '.' alone")
        if not isinstance(source, str):
            which = "" if name == DEFAULT else f" '{name}'"
            raise TemplateError(f"the model's own chat template{which} is {source!r:.40}, must be text; give another with --template")
        templates[name] = without_training_markers(source)
    return templates


def check_template_name(name: str, template: str, own: Mapping[str, str]) -> None:
    """Validate the choice of a model's own template by name.

    Args:
        name: Value of ``--template-name``; empty for none.
        template: Value of ``--template``; empty for none.
        own: The model's templates by name.

    Raises:
        UsageError: When the name does not exist; lists the existing ones.
        TemplateError: When there is no name and no template ``default``.
    """
    if name and template:
        raise UsageError("--template-name picks one of the model's own chat templates and --template replaces them; leave one of them out")
    if name and not own:
        raise UsageError(f"--template-name is '{name}' and the model has no chat template of its own; leave it out")
    if name and name not in own:
        raise UsageError(unknown_name_message("chat template name", name, own))
    if own and not (name or template) and DEFAULT not in own:
        raise TemplateError(
            f"the model has no chat template named '{DEFAULT}', only {', '.join(sorted(own))}; pick one for all conversations with "
            f"--template-name {min(own)}, or give another with --template"
        )
