"""The script that tests the chat templates of a folder: its whole table, for templates of this test."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
TURNS = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ROLES = "{# <|system|> <|user|> <|assistant|> <|tool|> #}"
KNOWS_TOOLS = (
    "{% for t in tools or [] %}<|system|>{{ t['function']['name'] }}{% endfor %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}"
    "{% for c in m.get('tool_calls') or [] %}{{ c['function']['name'] }}{{ c['function']['arguments'] | tojson }}{% endfor %}{% endif %}"
    "{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>"
)
TEMPLATES: dict[str, Any] = {
    "Broken.jinja": "{% for %}",
    "Closed/chat_template.jinja": KNOWS_TOOLS + "{% if not think %}<think></think>{% endif %}{% endif %}" + ROLES,
    "Ends/tokenizer_config.json": {
        "chat_template": TURNS.replace("<|end|>", "") + ROLES,
        "eos_token": {"content": "<stop>"},
        "added_tokens_decoder": {"0": {"content": "<stop>", "special": True}, "1": {"content": "<note>", "special": False}},
    },
    "Forgets.jinja": KNOWS_TOOLS.replace("m.get('tool_calls')", "m.get('calls')") + "{% endif %}" + ROLES,
    "Opens.jinja": KNOWS_TOOLS + "<think>\n{% if think is defined and not think %}</think>{% endif %}{% endif %}" + ROLES,
    "Plain.jinja": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system | turn.') }}{% endif %}" + TURNS + ROLES,
}
EXPECTED = r"""| family | template | one turn | several turns | system | tools | thoughts | note |
| --- | --- | --- | --- | --- | --- | --- | --- |
| Broken |  | refused: Expected an expression, got 'end of statement bloc… | refused: Expected an expression, got 'end of statement bloc… | refused: Expected an expression, got 'end of statement bloc… | no tools | refused: Expected an expression, got 'end of statement bloc… | one turn, several turns, system, thoughts: `--template alpaca` |
| Closed |  | ✓ | a row per reply | ✓ | a row per reply | the prompt has ended them | thoughts: `--template-argument think=true` |
| Ends |  | ✓ | ✓ | ✓ | no tools | ✓ | replies end with `<\|user\|>` |
| Forgets |  | ✓ | ✓ | ✓ | calls are dropped | ✓ |  |
| Opens |  | ✓ | a row per reply | ✓ | a row per reply | ✓ | a plain reply begins with `\n</think>\n\n`, unless `--template-argument think=false` |
| Plain | `owner/name a/plain.jinja` | ✓ | ✓ | refused: No system \| turn | no tools | ✓ | system: it can be trained on without the system turn |
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterable[Any]:
    """Import the script as when it runs."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import template_table

    yield template_table
    for name in ("template_table", "tiny_tokenizer"):
        sys.modules.pop(name, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of templates, in each form that the script reads, and a folder without one."""
    for name, given in TEMPLATES.items():
        path = tmp_path / "templates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(given if isinstance(given, str) else json.dumps(given), encoding="utf-8")
    (tmp_path / "templates" / "nothing").mkdir()
    return tmp_path / "templates"


def test_the_table_has_for_each_template_what_can_be_trained_on_why_not_and_a_remedy(
    script: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "SOURCES", folder / "sources.json")
    (folder / "sources.json").write_text(json.dumps({"Plain": "owner/name a/plain.jinja"}), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["template_table.py", str(folder)])

    script.main()

    assert capsys.readouterr().out == EXPECTED


def test_every_family_of_the_page_has_a_source_and_every_source_a_family() -> None:
    page = (SCRIPTS.parent / "docs" / "templates.md").read_text(encoding="utf-8")
    sources = json.loads((SCRIPTS / "template_sources.json").read_text(encoding="utf-8"))
    listed = [line.split(" | ")[:2] for line in page.partition("| family | template |")[2].partition("\n\n")[0].splitlines()[2:]]

    assert {name.removeprefix("| "): source.strip("`") for name, source in listed} == sources
    assert len(listed) >= 40
