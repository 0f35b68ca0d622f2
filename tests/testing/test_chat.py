"""``chat_with``: a third-party command is typed, and its output is that of the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftchat import ChatCommand, EngineError, Example, PluginError, Reply, Score, Task, hookimpl, rate
from sftchat.testing import ScriptedEngine, Shown, chat_with


def test_a_command_of_a_plugin_is_typed_and_its_output_is_returned(shout: Any) -> None:
    engine = ScriptedEngine(["SEA", "KINDLY: SEA"])

    shown = chat_with(engine, ["/again", "shout: sea", "/again kindly", "/help again"], shout)

    assert shown == [
        Shown("/again", notes="sftchat: error: /again: there is no message yet\n"),
        Shown("shout: sea", replies="SEA\n"),
        Shown("/again kindly", replies="KINDLY: SEA\n"),
        Shown("/help again", notes="/again [WORD]  ask once more, politely\n"),
    ]
    assert [request.messages[-1]["content"] for request in engine.requests] == ["shout: sea", "kindly: shout: sea"]


def test_nothing_is_typed_after_the_line_that_exits() -> None:
    shown = chat_with(ScriptedEngine([]), ["/exit", "never typed"])

    assert shown == [Shown("/exit")]


def test_a_model_that_fails_is_a_note() -> None:
    (shown,) = chat_with(ScriptedEngine([["so f", EngineError("gone")]]), ["hello"])

    assert shown == Shown("hello", "so f\n", "sftchat: error: gone; the partial reply is kept\n")


def test_a_task_scores_the_replies_and_rows_go_to_the_given_folder(tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"id": "1", "messages": [{"role": "user", "content": "1+1"}], "gold": "2"}\n', encoding="utf-8")

    def score(example: Example, reply: Reply) -> Score:
        return Score({"n": 1, "right": float(reply.text == example.gold)}, reply.text)

    task = Task("sums", "adds", lambda n, seed: [], score, (rate("accuracy", "right"),), evalsets={"gold": gold})

    first, second = chat_with(ScriptedEngine(["2"]), ["1+1", "/good"], task=task, rows=tmp_path / "rows")

    assert (first.replies, "accuracy 1" in first.notes) == ("2\n", True)
    (file,) = (tmp_path / "rows").glob("*.jsonl")
    assert str(file) in second.notes
    assert json.loads(file.read_text(encoding="utf-8"))["messages"][-1]["content"] == "2"


def test_a_plugin_with_a_taken_command_name_is_refused() -> None:
    class Mine:
        @hookimpl
        def sftchat_register_chat_commands(self) -> list[ChatCommand]:
            return [ChatCommand("exit", "leave", lambda context, argument: None)]

    with pytest.raises(PluginError, match="'exit' is already registered"):
        chat_with(ScriptedEngine([]), [], Mine())
