"""Former names of the public interface: accepted, with a deprecation warning that names the present one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

import sftchat
from sftchat import ChatCommand, Example, Message, Metric, Reply, Score, Task, hookimpl, rate
from sftchat.testing import ScriptedEngine, chat_with, check_task


def run(*_: Any) -> None: ...


def problems(example: Example) -> list[str]:
    return ["odd"]


def generate(n: int, seed: int) -> list[Example]:
    return [Example((Message(role="user", content=f"say {seed}-{i}"),), f"{seed}-{i}", f"{seed}-{i}") for i in range(n)]


def score(example: Example, reply: Reply) -> Score:
    return Score({"n": 1, "right": int(reply.text == example.gold)})


def a_task(**arguments: Any) -> Task:
    return Task("echo", "", generate, score, (rate("accuracy", "right"),), **arguments)


FORMER = [
    (lambda **given: Metric("m", sum, **given), "items", "per_item_rate", True),
    (lambda **given: a_task(**given), "problems", "validate_row", problems),
    (lambda **given: ChatCommand("again", "", run, **given), "while_generating", "allowed_while_busy", True),
    (lambda **given: ChatCommand("again", "", run, **given), "impossible", "unavailable_reason", run),
]


@pytest.mark.parametrize(("make", "former", "present", "value"), FORMER, ids=[former for _, former, _, _ in FORMER])
def test_a_former_name_is_accepted_with_a_warning_that_names_the_present_one(make: Any, former: str, present: str, value: object) -> None:
    with pytest.warns(DeprecationWarning, match=rf"\({former}=…\) is deprecated, use {present}=…") as caught:
        old = make(**{former: value})
    new = make(**{present: value})

    assert (getattr(old, present), getattr(new, present)) == (value, value)
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=rf"{former} is deprecated, use {present}") as caught:
        assert getattr(new, former) == value
    assert caught[0].filename == __file__


def test_the_former_name_of_a_class_gives_the_present_class() -> None:
    with pytest.warns(DeprecationWarning, match=r"sftchat\.Demonstration is deprecated, use sftchat\.DemoConfig"):
        assert sftchat.Demonstration is sftchat.DemoConfig  # type: ignore[attr-defined]


def test_the_former_name_of_a_function_gives_the_present_function_in_a_new_process() -> None:
    code = "from sftchat.testing import garbage, garbage_replies, check_task; print(garbage is garbage_replies)"

    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "True\n"
    assert "DeprecationWarning: sftchat.testing.garbage is deprecated, use garbage_replies" in done.stderr


def test_arguments_of_a_chat_context_have_their_former_names_too() -> None:
    def ask(context: Any, argument: str) -> None:
        context.generate(context.conversation.unanswered(), begun={})

    def work(context: Any, argument: str) -> None:
        context.work("work", lambda engine, handle: engine.name, context.info, column=context.conversation.column)

    class Plugin:
        @hookimpl
        def sftchat_register_chat_commands(self) -> list[ChatCommand]:
            return [ChatCommand("ask", "", ask), ChatCommand("work", "", work)]

    with pytest.warns(DeprecationWarning, match="is deprecated, use") as caught:
        shown = chat_with(ScriptedEngine(["one", "two"]), ["hi", "/ask", "/work"], Plugin())

    assert [(of.replies, of.notes) for of in shown] == [("one\n", ""), ("two\n", ""), ("", "scripted\n")]
    assert [str(of.message) for of in caught] == [
        "ChatContext.generate(begun=…) is deprecated, use partial_answers=…",
        "Conversation.column is deprecated, use pane",
        "ChatContext.work(column=…) is deprecated, use pane=…",
    ]
    assert {of.filename for of in caught} == {__file__}


def test_a_task_written_with_a_former_name_passes_the_check_of_its_contract() -> None:
    with pytest.warns(DeprecationWarning, match="use validate_row"):
        task = a_task(problems=lambda example: ())

    check_task(task, rows=10)
    assert replace(task, name="echo-2").validate_row is task.validate_row


def test_names_of_the_package_are_listed_before_they_are_imported() -> None:
    assert set(sftchat.__all__) <= set(dir(sftchat))
    with pytest.raises(AttributeError, match="module 'sftchat' has no attribute 'talk'"):
        sftchat.talk  # noqa: B018
