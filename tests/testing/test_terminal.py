"""``chat_on_screen``: keys are pressed in a chat with a third-party plugin, and the screen can be asserted."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from sftchat import MissingExtraError
from sftchat.testing import ScriptedEngine
from sftchat.testing import terminal as kit
from sftchat.testing.terminal import Screen, chat_on_screen


def test_again_is_completed_and_sends_once_more(shout: Any) -> None:
    engine = ScriptedEngine(["SEA", "KINDLY: SEA"])

    with chat_on_screen(engine, shout, columns=60) as chat:
        chat.say("shout: sea")
        chat.type("/aga\t kindly\r")
        chat.screen.wait("KINDLY: SEA")
        assert "> kindly: shout: sea\nKINDLY: SEA" in chat.leave()

    assert [request.messages[-1]["content"] for request in engine.requests] == ["shout: sea", "kindly: shout: sea"]


def test_a_chat_that_a_test_leaves_open_is_ended() -> None:
    with chat_on_screen(ScriptedEngine([])) as chat:
        chat.type("half a line")
        chat.screen.wait("half a line")

    assert chat.screen.ended
    assert chat.problem is None


def test_a_missing_text_is_reported_with_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit, "TIMEOUT_SECONDS", 0.1)
    screen = Screen(20, 4)
    screen.feed("床前明月光\r\nhere")

    with pytest.raises(AssertionError, match="^never saw 'there'; the screen:\n床前明月光\nhere$"):
        screen.wait("there")


def test_without_the_emulator_the_command_to_install_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(kit, "find_spec", lambda name: None if name == "pyte" else found(name))

    with pytest.raises(MissingExtraError, match=r"pip install 'sftchat\[testing\]'"):
        Screen()
