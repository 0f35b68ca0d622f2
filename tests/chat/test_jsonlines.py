"""The chat for programs: JSON in, JSON out."""

from __future__ import annotations

import io
import json
from typing import Any

from sftchat.chat.commands import BUILTINS, Commands
from sftchat.chat.controller import ChatController
from sftchat.chat.pane import Opening
from sftchat.chat.ui.jsonl import JsonLines
from sftchat.errors import EngineError
from sftchat.task import ReplyScore
from sftchat.testing import ScriptedEngine
from sftchat.types import Reply


def run(lines: list[str], *engines: ScriptedEngine) -> tuple[list[dict[str, Any]], JsonLines]:
    out, err = io.StringIO(), io.StringIO()
    openings = [Opening(lambda engine=engine: engine, (engine.name,)) for engine in engines]  # type: ignore[misc]
    stdin = io.StringIO("\n".join(lines))
    view = JsonLines(lambda shown: ChatController(openings, shown, commands=Commands(BUILTINS)), stdin=stdin, stdout=out, stderr=err)
    view.run()
    assert err.getvalue() == ""
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    for row in rows:
        for moving in ("first_token_seconds", "seconds"):
            assert row.pop(moving, 0) >= 0
    return rows, view


def reply(text: str, model: str = "scripted", **fields: Any) -> dict[str, Any]:
    return {
        "type": "reply",
        "model": model,
        "adapter": "",
        "reply": text,
        "finish_reason": "stop",
        "prompt_tokens": 21,
        "completion_tokens": len(text),
    } | fields


def test_a_message_is_an_object_and_so_is_its_reply() -> None:
    rows, view = run(['{"message": "a", "id": 7}', "", '{"message": "b\\nc"}'], ScriptedEngine(["一\x1b[2J", "two\nlines"]))

    assert rows == [
        reply("一\x1b[2J", id=7, prompt_tokens=19),
        reply("two\nlines", prompt_tokens=len("user: a\nassistant: 一\x1b[2J\nuser: b\nc\nassistant: ")),
    ]
    assert view.failures == 0


def test_thoughts_and_refusals_are_separate_fields() -> None:
    rows, _ = run(['{"message": "a"}'], ScriptedEngine([Reply("no", thoughts="hm", refused=True)]))

    assert rows == [
        reply("no", prompt_tokens=19, thoughts="hm", refused=True),
        {"type": "note", "text": "the server marks the reply as a refusal"},
    ]


def test_commands_work_and_errors_are_objects() -> None:
    rows, view = run(
        ['{"message": "/set seed 4"}', '{"message": "/rest", "id": "x"}', '{"message": "boom"}'], ScriptedEngine([EngineError("gone")])
    )

    assert rows[0] == {"type": "note", "text": "seed 4"}
    assert (rows[1]["type"], rows[1]["id"]) == ("error", "x")
    assert rows[1]["error"].startswith("unknown command '/rest'")
    assert rows[2] == reply("", finish_reason="error", prompt_tokens=0)
    assert rows[3] == {"type": "error", "error": "gone; the message is taken back"}
    assert view.failures == 2


def test_invalid_lines_are_reported_and_the_chat_continues() -> None:
    rows, view = run(["hello", '["a"]', '{"message": 3}', '{"message": "a", "text": "b"}', '{"message": "a"}'], ScriptedEngine(["fine"]))

    assert [row["type"] for row in rows] == ["error"] * 4 + ["reply"]
    assert "not JSON" in rows[0]["error"]
    assert rows[3]["error"] == "unknown field 'text' in the line, there are: id, message"
    assert view.failures == 4


def test_every_model_has_a_reply_of_its_own() -> None:
    rows, _ = run(['{"message": "a"}'], ScriptedEngine(["x"], name="base"), ScriptedEngine(["yy"], name="tuned"))

    assert rows == [reply("x", "base", prompt_tokens=19), reply("yy", "tuned", prompt_tokens=19)]


def test_scores_are_objects() -> None:
    out = io.StringIO()
    engine = ScriptedEngine([])
    view = JsonLines(
        lambda shown: ChatController([Opening(lambda: engine, ("m",))], shown, commands=Commands(BUILTINS)),
        stdin=io.StringIO(),
        stdout=out,
        stderr=io.StringIO(),
    )
    view.show_score(ReplyScore("F1", 0.5, ("missing",), "甲"), 0)

    assert json.loads(out.getvalue()) == {"type": "mark", "model": "m", "metric": "F1", "value": 0.5, "errors": ["missing"], "answer": "甲"}


def test_a_fork_counts_the_generated_tokens_and_not_the_replaced_ones() -> None:
    engine = ScriptedEngine(
        lambda request: "+" if request.reply_ids else "abcdefgh", likeliest=[{"a": 1.0}, {"b": 0.6, "x": 0.4}, {}] + [{}] * 5
    )
    rows, _ = run(['{"message": "hi"}', '{"message": "/fork 2 x"}'], engine)

    assert [(row["reply"], row["completion_tokens"]) for row in rows] == [("abcdefgh", 8), ("ax+", 3)]
