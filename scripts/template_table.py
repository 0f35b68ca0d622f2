"""Test every chat template of a folder and print a Markdown table of what can be trained on.

    python scripts/template_table.py templates > table.md

The folder holds files NAME.jinja, and folders NAME with a ``chat_template.jinja`` or a ``tokenizer_config.json``, as in model repositories. No model is
needed: each template is tested on a tiny tokenizer with the special tokens that the template writes. ``scripts/template_sources.json`` has the
repository and file of each template in the table of docs/templates.md, by NAME.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_tokenizer import tokenizer_for

from sftchat.errors import TemplateError
from sftchat.templates.parity import SAMPLES, Check, Sample, check_parity, find_remedy
from sftchat.templates.renderer import Renderer, choose_renderer

SOURCES = Path(__file__).with_name("template_sources.json")
COLUMNS = {
    "one turn": "one turn",
    "several turns": "several turns",
    "system": "a system turn",
    "tools": "calls of tools",
    "thoughts": "thoughts",
}
"""Columns of the table, each with the name of its sample conversation."""
REASONS = (
    (r"leaves out tool ", "no tools"),
    (r"leaves out the call of tool ", "calls are dropped"),
    (r"leaves out the thoughts", "thoughts are dropped"),
    (r"leaves out ", "content is dropped"),
    (r"refuses the turns \([^)]*\): (.*)", ""),
    (r"does not write what the assistant says", "the reply is not written"),
    (r"(?:opens turn|writes) ", "prompt and reply part"),
)
"""Patterns of refusals, each with a short text for the table. When the text is empty, the first group of the match is shown."""
THOUGHTS_CLOSED = "the prompt has ended them"
"""Cell for thoughts that are refused because prompt and finished reply differ."""
MAX_MESSAGE_CHARACTERS = 60
"""Maximum number of characters of a template's own error message in a cell."""


@dataclass(frozen=True)
class Family:
    """A chat template and what is known of its tokenizer.

    Attributes:
        name: Name of the model family.
        template: The Jinja source, or several by name.
        tokens: Arguments of ``tokenizer_for`` besides the source, as far as they are known.
    """

    name: str
    template: str | Mapping[str, str]
    tokens: Mapping[str, Any] = field(default_factory=dict)

    def renderer(self) -> Renderer:
        """Return a renderer of the template with a tiny tokenizer.

        Raises:
            TemplateError: The source is not a template.
        """
        sources = [self.template] if isinstance(self.template, str) else list(self.template.values())
        tokenizer = tokenizer_for("\n".join(sources), **self.tokens)
        tokenizer.chat_template = self.template if isinstance(self.template, str) else dict(self.template)
        return choose_renderer(tokenizer)


def families(folder: Path) -> Iterator[Family]:
    """Yield the templates of a folder, sorted by name."""
    for path in sorted(folder.iterdir(), key=lambda path: path.stem.lower() if path.is_file() else path.name.lower()):
        if path.suffix == ".jinja":
            yield Family(path.stem, path.read_text(encoding="utf-8"))
        elif path.is_dir():
            config, jinja = path / "tokenizer_config.json", path / "chat_template.jinja"
            settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
            template = jinja.read_text(encoding="utf-8") if jinja.is_file() else settings.get("chat_template")
            if isinstance(template, list):
                template = {named["name"]: named["template"] for named in template}
            if template:
                yield Family(path.name, template, tokenizer_arguments(settings))


def tokenizer_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``tokenizer_for`` that a ``tokenizer_config.json`` gives."""
    arguments: dict[str, Any] = {}
    for key in ("bos", "eos"):
        token = config.get(f"{key}_token")
        if text := token.get("content") if isinstance(token, dict) else token:
            arguments[key] = text
    added = list((config.get("added_tokens_decoder") or {}).values())
    for key, is_special in (("further_special_tokens", True), ("further_reply_tokens", False)):
        if tokens := tuple(token["content"] for token in added if bool(token.get("special")) == is_special):
            arguments[key] = tokens
    return arguments


def table_row(family: Family, source: str) -> list[str]:
    """Return one row of the table: the family, its source, a cell for each column, and a note."""
    try:
        renderer = family.renderer()
        checks = check_parity(renderer, stop_token_ids(renderer))
    except TemplateError as error:
        return [family.name, source, *("refused" for _ in COLUMNS), str(error)]
    by_name = {check.name: check for check in checks}
    samples = {sample.name: sample for sample in SAMPLES}
    verdicts = {column: by_name[f"can be trained on {name}"] for column, name in COLUMNS.items()}
    refused = {column: samples[COLUMNS[column]] for column, check in verdicts.items() if not check.passed}
    other_failed = [check for check in checks[len(SAMPLES) :] if not check.passed]  # the first checks are those of the samples
    notes = remedy_notes(renderer, refused) + list(filter(None, (other_remark(check, renderer) for check in other_failed)))
    cells = {column: shorten_verdict(check) for column, check in verdicts.items()}
    if cells["thoughts"] == "prompt and reply part" and cells["one turn"] != "prompt and reply part":
        cells["thoughts"] = THOUGHTS_CLOSED
    if not verdicts["tools"].passed and not re.search(r"\btools\b", renderer.source):
        cells["tools"] = "no tools"
    return [family.name, source, *cells.values(), "; ".join(notes)]


def stop_token_ids(renderer: Renderer) -> tuple[int, ...]:
    """Return the ids on which generation stops after training; none when the template cannot be trained on."""
    try:
        return renderer.stop_tokens
    except TemplateError:
        return ()


def shorten_verdict(check: Check) -> str:
    """Return the cell for a check."""
    if check.passed:
        return "✓" if check.detail == "one row" else "a row per reply"
    for expression, short_text in REASONS:
        if match := re.search(expression, check.detail):
            text = short_text or "refused: " + match[1].partition("; ")[0].rstrip(".")
            return text if len(text) <= MAX_MESSAGE_CHARACTERS else f"{text[: MAX_MESSAGE_CHARACTERS - 1]}…"
    return "refused"


def remedy_notes(renderer: Renderer, refused: Mapping[str, Sample]) -> list[str]:
    """Return one note per remedy that works, with the columns whose refused sample it makes trainable."""
    columns_by_remedy: dict[str, list[str]] = {}
    for column, sample in refused.items():
        if option := find_remedy(renderer, sample.messages, sample.tools):
            columns_by_remedy.setdefault(mark_option_as_code(option), []).append(column)
    return [f"{', '.join(columns)}: {option}" for option, columns in columns_by_remedy.items()]


def other_remark(check: Check, renderer: Renderer) -> str:
    """Return the note for a failed check that has no column, or an empty string."""
    if check.name == "the trained text is what the assistant says and its stop":
        learned, _, argument = check.detail.partition("; exactly that with ")
        reply_text = SAMPLES[0].messages[-1]["content"]
        added = learned.partition(" for ")[0].strip("'\"").partition(reply_text)[0]
        if not added.replace("\\n", "").strip():
            return ""  # only white space
        return f"a plain reply begins with `{added}`" + (f", unless `{argument}`" if argument else "")
    if check.name == "a reply ends with a token that the template writes":
        return f"replies end with `{renderer.template.stop}`"
    return f"{check.name}: {check.detail}" if check.required else ""


def mark_option_as_code(text: str) -> str:
    """Mark the option in a text as Markdown code."""
    return re.sub(r"--\S+ \S+", lambda match: f"`{match[0]}`", text.removeprefix("try "))


def table(folder: Path, sources: Mapping[str, str]) -> str:
    """Return the Markdown table of a folder."""
    head = ["family", "template", *COLUMNS, "note"]
    lines = [
        head,
        ["---"] * len(head),
        *(table_row(family, f"`{sources[family.name]}`" if family.name in sources else "") for family in families(folder)),
    ]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in line) + " |" for line in lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of templates")
    args = parser.parse_args()
    print(table(args.folder, json.loads(SOURCES.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
