"""Chat templates of a model that has several by name, such as ``default`` and ``tool_use``, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftchat.errors import UsageError, unknown
from sftchat.models.model_files import MORE_TEMPLATES
from sftchat.templates.builtin import NAME, without_training_markers
from sftchat.templates.chat_template import TemplateError

DEFAULT = "default"
"""Name of the template for conversations without tools."""
TOOL_USE = "tool_use"
"""Name of the template for conversations with tools, as in transformers' ``get_chat_template``."""
FILE = "chat_template.jinja"
"""File of the template ``default``; the others are in ``additional_chat_templates/NAME.jinja``."""


def own_templates(tokenizer: Any) -> dict[str, str]:
    """Return the chat templates of a tokenizer by name, without training markers.

    Args:
        tokenizer: A transformers tokenizer; its ``chat_template`` is a string, or a dict of strings by name.

    Returns:
        A single template under ``default``; empty if there is none.

    Raises:
        TemplateError: When one is not text, or its name is not a valid file name.
    """
    given = tokenizer.chat_template
    found = given if isinstance(given, Mapping) else {DEFAULT: given}
    templates = {}
    for name, source in found.items():
        if not source:
            continue
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise TemplateError(f"the model has a chat template named {name!r:.40}; a name has letters, digits, '_', '-' and '.' alone")
        if not isinstance(source, str):
            which = "" if name == DEFAULT else f" '{name}'"
            raise TemplateError(f"the model's own chat template{which} is {source!r:.40}, must be text; give another with --template")
        templates[name] = without_training_markers(source)
    return templates


def check_name(name: str, template: str, own: Mapping[str, str]) -> None:
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
        raise UsageError(unknown("chat template name", name, own))
    if own and not (name or template) and DEFAULT not in own:
        raise TemplateError(
            f"the model has no chat template named '{DEFAULT}', only {', '.join(sorted(own))}; pick one for all conversations with "
            f"--template-name {min(own)}, or give another with --template"
        )


def write_templates(folder: Path, saved: str | Mapping[str, str]) -> None:
    """Write a model's chat templates into its folder in transformers' layout, replacing existing ones.

    Args:
        folder: The folder of the model.
        saved: A single template, or several by name.
    """
    templates = {DEFAULT: saved} if isinstance(saved, str) else saved
    for old in (folder / FILE, *(folder / MORE_TEMPLATES).glob("*.jinja")):
        old.unlink(missing_ok=True)
    for name, source in templates.items():
        path = folder / FILE if name == DEFAULT else folder / MORE_TEMPLATES / f"{name}.jinja"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
