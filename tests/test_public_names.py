"""The public names: a change is a decision, and docs/hooks.md lists the same names."""

from __future__ import annotations

import re
from pathlib import Path

import sftchat
import sftchat.scorers
import sftchat.testing
import sftchat.testing.terminal
import sftchat.text

MODULES = (sftchat, sftchat.scorers, sftchat.text, sftchat.testing, sftchat.testing.terminal)
PAGE = (Path(__file__).parent.parent / "docs" / "hooks.md").read_text(encoding="utf-8")

NAMES = {
    "sftchat": [
        "PLUGIN_API", "ChatCommand", "ChatContext", "Chunk", "DataError", "DemoConfig", "Engine", "EngineError", "EngineType", "EvaluationReport",
        "Example", "ForgettingConfig", "Message", "Metric", "MissingExtraError", "Model", "ModelError", "NotComparableError", "PluginError", "Reply",
        "Request", "Run", "SamplingParams", "Score", "SftchatError", "Task", "TrainingDefaults", "UsageError", "chat", "evaluate", "hookimpl", "load",
        "rate", "ratio", "train",
    ],
    "sftchat.scorers": [
        "Scorer", "all_of", "any_of", "bleu", "choice", "chrf", "contains", "exact", "function", "json_fields",
        "json_schema", "make_scorer", "multiple_choice", "numeric", "parse_numeral", "perplexity", "python_tests", "regex", "rouge_l",
        "rouge_l_f1", "set_f1", "sql_result", "tool_call", "weighted",
    ],
    "sftchat.text": ["COLONS", "DASHES", "MIDDLE_DOTS", "fold_width", "normalise", "printable", "strip_thinking", "tokens", "words"],
    "sftchat.testing": [
        "BrokenContract", "Replies", "Script", "ScriptedEngine", "Shown", "chat_with", "check_task", "contract_faults", "garbage_replies", "plugin_manager_with",
    ],
    "sftchat.testing.terminal": ["ChatOnScreen", "Screen", "chat_on_screen"],
}  # fmt: skip


def test_the_public_names_are_as_listed_and_exist() -> None:
    assert {module.__name__: module.__all__ for module in MODULES} == NAMES
    assert [name for module in MODULES for name in module.__all__ if not hasattr(module, name)] == []


def test_the_page_on_hooks_lists_them() -> None:
    rows = re.findall(r"^\| `(sftchat[\w.]*)` \| (.*) \|$", PAGE, flags=re.MULTILINE)
    listed = {module: re.findall(r"`(\w+)`", names) for module, names in rows}

    assert listed == {**NAMES, "sftchat.testing.fixtures": ["run_sftchat", "sftchat_home"]}


def test_the_page_states_how_long_public_names_stay() -> None:
    (promise,) = re.findall(r"^## Stability\n(.*)", PAGE, flags=re.MULTILINE | re.DOTALL)

    assert "at least two further minor releases and half a year, with a `DeprecationWarning`" in promise
    assert f"`sftchat.PLUGIN_API` is the version of the interface, now {sftchat.PLUGIN_API}." in promise
