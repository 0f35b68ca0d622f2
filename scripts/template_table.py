"""Test every chat template of a folder and print a Markdown table of what can be trained on.

    python scripts/template_table.py templates > table.md

The folder holds files NAME.jinja, and folders NAME with a ``chat_template.jinja`` or a ``tokenizer_config.json`` as in model repositories. Each
template is tested on a tiny tokenizer with the special tokens that it writes, so no model is needed. ``scripts/template_sources.json`` has the sources
of the templates in the table of docs/templates.md, by name.
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
from sftchat.templates.parity import SAMPLES, Check, Sample, check_parity, remedy
from sftchat.templates.renderer import Renderer, choose_renderer

SOURCES = Path(__file__).with_name("template_sources.json")
COLUMNS = {
    "one turn": "one turn",
    "several turns": "several turns",
    "system": "a system turn",
    "tools": "calls of tools",
    "thoughts": "thoughts",
}
"""Columns of the table, each with its sample."""
REASONS = (
    (r"leaves out tool ", "no tools"),
    (r"leaves out the call of tool ", "calls are dropped"),
    (r"leaves out the thoughts", "thoughts are dropped"),
    (r"leaves out ", "content is dropped"),
    (r"refuses the turns \([^)]*\): (.*)", ""),
    (r"does not write what the assistant says", "the reply is not written"),
    (r"(?:opens turn|writes) ", "prompt and reply part"),
)
"""Patterns of refusals, each with a short text for the table; without a text, the first group of the match is used."""
CLOSED = "the prompt has ended them"
"""Text for thoughts that are refused because prompt and finished reply differ."""
LONGEST = 60
"""Maximum characters of a template's own message."""


@dataclass(frozen=True)
class Family:
    """A chat template with the known tokens of its tokenizer.

    Attributes:
        name: Of the model family.
        template: The Jinja source, or several by name.
        tokens: Arguments of ``tokenizer_for`` besides the source, as far as they are known.
    """

    name: str
    template: str | Mapping[str, str]
    tokens: Mapping[str, Any] = field(default_factory=dict)

    def renderer(self) -> Renderer:
        """The template with a tiny tokenizer.

        Raises:
            TemplateError: When it is none.
        """
        sources = [self.template] if isinstance(self.template, str) else list(self.template.values())
        tokenizer = tokenizer_for("\n".join(sources), **self.tokens)
        tokenizer.chat_template = self.template if isinstance(self.template, str) else dict(self.template)
        return choose_renderer(tokenizer)


def families(folder: Path) -> Iterator[Family]:
    """The templates of a folder, by name."""
    for path in sorted(folder.iterdir(), key=lambda path: path.stem.lower() if path.is_file() else path.name.lower()):
        if path.suffix == ".jinja":
            yield Family(path.stem, path.read_text(encoding="utf-8"))
        elif path.is_dir():
            config, jinja = path / "tokenizer_config.json", path / "chat_template.jinja"
            known = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
            template = jinja.read_text(encoding="utf-8") if jinja.is_file() else known.get("chat_template")
            if isinstance(template, list):
                template = {one["name"]: one["template"] for one in template}
            if template:
                yield Family(path.name, template, tokens_of(known))


def tokens_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the special tokens of a ``tokenizer_config.json``."""
    found: dict[str, Any] = {}
    for key in ("bos", "eos"):
        token = config.get(f"{key}_token")
        if text := token.get("content") if isinstance(token, dict) else token:
            found[key] = text
    added = list((config.get("added_tokens_decoder") or {}).values())
    for key, special in (("further_special_tokens", True), ("further_reply_tokens", False)):
        if tokens := tuple(token["content"] for token in added if bool(token.get("special")) == special):
            found[key] = tokens
    return found


def row(family: Family, source: str) -> list[str]:
    """One line of the table: the family, where it is from, a cell for each column, and a note."""
    try:
        renderer = family.renderer()
        checks = check_parity(renderer, stops(renderer))
    except TemplateError as error:
        return [family.name, source, *("refused" for _ in COLUMNS), str(error)]
    by_name = {check.name: check for check in checks}
    samples = {sample.name: sample for sample in SAMPLES}
    verdicts = {column: by_name[f"can be trained on {name}"] for column, name in COLUMNS.items()}
    notes = [*remedies(renderer, {column: samples[COLUMNS[column]] for column, check in verdicts.items() if not check.passed})]
    notes += [note for check in checks[len(SAMPLES) :] if not check.passed and (note := further(check, renderer))]
    knows_tools = re.search(r"\btools\b", renderer.source)
    cells = {column: cell(check) for column, check in verdicts.items()}
    if cells["thoughts"] == "prompt and reply part" != cells["one turn"]:
        cells["thoughts"] = CLOSED
    if not verdicts["tools"].passed and not knows_tools:
        cells["tools"] = "no tools"
    return [family.name, source, *cells.values(), "; ".join(notes)]


def stops(renderer: Renderer) -> tuple[int, ...]:
    """Return the ids on which generation stops after training; none when the template cannot be trained on."""
    try:
        return renderer.stop_tokens
    except TemplateError:
        return ()


def cell(check: Check) -> str:
    """Shorten a verdict."""
    if check.passed:
        return "✓" if check.detail == "one row" else "a row per reply"
    for expression, words in REASONS:
        if found := re.search(expression, check.detail):
            said = words or "refused: " + found[1].partition("; ")[0].rstrip(".")
            return said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…"
    return "refused"


def remedies(renderer: Renderer, refused: Mapping[str, Sample]) -> list[str]:
    """Return the remedies of refused conversations, grouped by remedy."""
    found: dict[str, list[str]] = {}
    for column, sample in refused.items():
        if words := remedy(renderer, sample.messages, sample.tools):
            found.setdefault(code(words), []).append(column)
    return [f"{', '.join(columns)}: {words}" for words, columns in found.items()]


def further(check: Check, renderer: Renderer) -> str:
    """Return the remark of a further check of a template."""
    if check.name == "the trained text is what the assistant says and its stop":
        learned, _, argument = check.detail.partition("; exactly that with ")
        said = SAMPLES[0].messages[-1]["content"]
        added = learned.partition(" for ")[0].strip("'\"").partition(said)[0]
        if not added.replace("\\n", "").strip():
            return ""  # only white space
        return f"a plain reply begins with `{added}`" + (f", unless `{argument}`" if argument else "")
    if check.name == "a reply ends with a token that the template writes":
        return f"replies end with `{renderer.template.stop}`"
    return f"{check.name}: {check.detail}" if check.required else ""


def code(words: str) -> str:
    """Format the option within a text as code."""
    return re.sub(r"--\S+ \S+", lambda found: f"`{found[0]}`", words.removeprefix("try "))


def table(folder: Path, sources: Mapping[str, str]) -> str:
    """The Markdown table of a folder."""
    head = ["family", "template", *COLUMNS, "note"]
    lines = [
        head,
        ["---"] * len(head),
        *(row(family, f"`{sources[family.name]}`" if family.name in sources else "") for family in families(folder)),
    ]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in line) + " |" for line in lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="templates, by family")
    args = parser.parse_args()
    print(table(args.folder, json.loads(SOURCES.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
