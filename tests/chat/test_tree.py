"""Commands that move in the conversation tree, as typed, with the prompts that the model then gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sftchat.errors import EngineError
from sftchat.testing import ScriptedEngine
from sftchat.types import Reply
from tests.chat.logged import Log

View = Callable[..., Log]


def shown(engine: ScriptedEngine) -> list[str]:
    """Return the last prompt of the model, with roles as first letters."""
    return [f"{message['role'][0]}:{message['content']}" for message in engine.requests[-1].messages]


def test_undo_goes_back_and_redo_takes_it_back(view: View) -> None:
    engine = ScriptedEngine(["A", "B", "C", "D"], chunks=9)
    log = view(engine)
    log.type("a", "b", "c")

    assert log.type("/undo 2") == ["note: after turn 1: a"]
    assert log.type("/redo") == ["note: after turn 3: c"]
    log.type("/undo", "/undo", "d")
    assert shown(engine) == ["u:a", "a:A", "u:d"]
    assert log.type("/redo", "/undo 9", "/undo x") == [
        "error: /redo: nothing was undone",
        "error: cannot go back 9 turns: the conversation has 2",
        "error: N is 'x', must be a whole number from 1 on",
    ]


def test_regenerating_changes_the_seed_and_reports_when_it_cannot(view: View) -> None:
    engine = ScriptedEngine(["A", "B", "C"], chunks=9)
    log = view(engine)

    assert log.type("/regen") == ["error: /regen: nothing was asked yet"]
    assert log.type("a", "/regen") == ["A", "|", "note: greedy: the model will say the same; '/set temperature 0.7' lets it vary", "B", "|"]
    log.type("/set temperature 0.5", "/regen")

    assert shown(engine) == ["u:a"]
    assert [request.sampling.seed for request in engine.requests] == [0, 0, 2]
    assert log.chat.conversation.turns[0].answer.sampling.seed == 2
    assert log.type("/branches") == ["note:   1  1 turn: a → A\n  2  1 turn: a → B\n* 3  1 turn: a → C"]


def test_a_failed_message_is_sent_again_and_shown_once(view: View) -> None:
    engine = ScriptedEngine([EngineError("gone"), "A", EngineError("gone"), "C"], chunks=9)
    log = view(engine)

    assert log.type("a", "/regen") == ["|", "error: gone; the message is taken back", "A", "|"]
    log.type("b", "c")
    assert shown(engine) == ["u:a", "a:A", "u:c"]


def test_editing_sends_another_wording_and_keeps_the_old_branch(view: View) -> None:
    engine = ScriptedEngine(["A", "B", "C", "D"], chunks=9)
    log = view(engine)
    log.type("a", "b")

    assert log.type("/edit", "/edit 1") == ["proposed: /edit b", "proposed: /edit 1: a"]
    assert log.type("/edit 1: x\ny", "/edit 2 apples") == ["C", "|", "D", "|"]
    assert shown(engine) == ["u:2 apples"]
    assert log.type("/edit 7", "/branches 1", "/history 1") == [
        "error: there is no turn 7: the conversation has 1",
        "note: after turn 2: b",
        "note: 2 > b\nB",
    ]


def test_a_cut_reply_is_continued_without_a_user_turn(view: View) -> None:
    engine = ScriptedEngine([Reply("床前明", "length"), "月光", "next"], chunks=9)
    log = view(engine)

    assert log.type("poem", "/continue") == [
        "床前明",
        "|",
        "note: cut at 3 tokens; /continue goes on, '/set max_new_tokens N' allows more",
        "月光",
        "|",
    ]
    assert (shown(engine), engine.requests[-1].reply_ids) == (["u:poem"], tuple(map(ord, "床前明")))  # the generated tokens themselves
    answer = log.chat.conversation.turns[0].answer
    assert (answer.reply.text, answer.reply.completion_tokens, answer.token_ids) == ("床前明月光", 5, tuple(map(ord, "床前明月光")))
    assert log.type("/continue") == ["error: /continue: the reply is complete; only one that was cut can go on"]
    log.type("on")
    assert shown(engine) == ["u:poem", "a:床前明月光", "u:on"]


def test_branching_starts_from_any_turn(view: View) -> None:
    engine = ScriptedEngine(["A", "B", "C"], chunks=9)
    log = view(engine, system="s")
    log.type("a", "b")

    assert log.type("/branch 1") == ["note: after turn 1: a; what you say next is a new branch"]
    log.type("c")
    assert shown(engine) == ["s:s", "u:a", "a:A", "u:c"]
    assert log.type("/branch", "/branch 3", "/branches 3", "/branch 0") == [
        "error: N is missing, must be a whole number from 0 on",
        "error: there is no turn 3: the conversation has 2",
        "error: there is no branch 3: the conversation has 2",
        "note: at the beginning of the conversation; what you say next is a new branch",
    ]


@pytest.mark.parametrize("command", ["undo", "redo", "regen", "edit", "continue", "branch", "branches", "history"])
def test_unavailable_commands_are_reported_and_not_offered(view: View, command: str) -> None:
    log = view(ScriptedEngine([]))

    (said,) = log.type(f"/{command}")
    assert said.startswith(f"error: /{command}: ")
    assert [one.text for one in log.chat.commands.complete(log.chat, f"/{command}")] == []
