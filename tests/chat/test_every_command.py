"""Every chat command, typed in a real terminal, with its complete output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftchat.chat.commands import BUILTINS, Commands, help_text
from tests.chat.conftest import Pty, Screen

COLUMNS, LINES = 120, 40
ASKS = "how many models> "
PROBABILITIES = """答：hi

1   90.0%  答
2   75.0%  ：
3    0.1%  h
4    0.1%  i
5    0.1%  ⏎
5 tokens, log-likelihood -21.12, -4.223 a token, perplexity 68.3"""


def listed(text: str) -> str:
    """Return characters in the format of /tokens, one token each."""
    rows = [(number, ord(character), {"\n": "⏎", " ": "␣"}.get(character, character)) for number, character in enumerate(text, 1)]
    return "\n".join(f"{number:>2}  {code:>5}  {sign}" for number, code, sign in rows)


CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "help": (("/help",), help_text(Commands(BUILTINS))),
    "exit": (("/exit",), "how many models>"),
    "system": (("/system 简短 be brief", "/system"), "简短 be brief"),
    "undo": (("hi", "/undo"), "at the beginning of the conversation"),
    "redo": (("hi", "/undo", "/redo"), "after turn 1: hi"),
    "regen": (("hi", "/set temperature 1", "/regen"), "答：hi"),
    "edit": (("hi", "again", "/edit 1: 你好"), "答：你好"),
    "continue": (("cut", "/continue"), "床前明月光"),
    "branch": (("hi", "again", "/branch 1"), "after turn 1: hi; what you say next is a new branch"),
    "branches": (("hi", "again", "/branch 1", "你好", "/branches"), "  1  2 turns: again → 答：again\n* 2  2 turns: 你好 → 答：你好"),
    "history": (("/system s", "hi", "again", "/history"), "system: s\n1 > hi\n答：hi\n2 > again\n答：again"),
    "reset": (("/system s", "hi", "/reset"), "the conversation starts again; the system prompt stays; /branches leads back"),
    "set": (("/set temperature 0.5",), "temperature 0.5"),
    "seed": (("/seed 7",), "seed 7"),
    "stop": (("/stop \\n\\n", "/stop 。"), "stop \\n\\n 。"),
    "template": (("/template enable_thinking=off",), "enable_thinking off"),
    "sessions": (("hi", "/sessions"), "* 1  DAY  1 turn with run/checkpoint-9: hi"),
    "save": (("hi", "/save 日记"), "this conversation is '日记' now: 'sftchat chat --session 日记' or /load 日记 goes on with it"),
    "load": (("hi", "/save a", "again", "/load a"), "session a: 2 turns, said with run/checkpoint-9; /history shows it"),
    "export": (("hi", "/export talk.md"), "1 turn written to talk.md as markdown"),
    "model": (("hi", "/model other"), "other answers from the next message on; /regen asks it the last one again"),
    "focus": (("/focus 2",), "model 2: other"),
    "adapter": (("/adapter lora", "hi"), "答：hi by lora"),
    "checkpoint": (("hi", "/checkpoint next"), "run/checkpoint-20: step 20\n答：hi"),
    "prompt": (("hi", "/prompt"), "user: hi\nassistant: ▏20 tokens"),
    "tokens": (("/tokens 你",), listed("user: 你\nassistant: ")),
    "mask": (("hi", "/mask"), "user: hi\nassistant: ⟦答：hi\n⟧\nlearns 5 of 25 tokens, those in ⟦⟧"),
    "probs": (("hi", "/probs"), PROBABILITIES),
    "why": (("hi", "/why 2"), "token 2 of 5; '/fork 2 #K' goes on with another\n#1   75.0%  ：  ← said\n#2   25.0%  ，"),
    "fork": (("hi", "/fork 2 #2"), "答，明月光"),
    "likelihood": (("问 1", "/likelihood gold"), "run/checkpoint-9  6 tokens, log-likelihood -28.02, -4.671 a token, perplexity 107"),
    "samples": (("hi", "/samples 3"), "3 samples at temperature 0.7, 1 different answer\n3×  答：hi"),
    "raw": (("/raw 从前",), "从前答：从前"),
    "good": (("hi", "/good"), "row written: rows/messages.jsonl:1"),
    "bad": (("hi", "/bad"), "noted; a pair is written when another reply to this message is /good, or this one is put right by /fix TEXT"),
    "fix": (("hi", "/fix 你好"), "row written: rows/messages.jsonl:1\nrow written: rows/preferences.jsonl:1"),
    "gold": (("hi", "/gold 你好"), "row written: rows/evalset.jsonl:1"),
    "eval": (("/eval",), "run/checkpoint-9, 2 of 2 items: accuracy 1.000 [0.342, 1.000]"),
    "item": (("/item item-2",), "答：问 2\naccuracy 1.00"),
    "markdown": (("/markdown off", "bold"), "**粗**体"),
    "thoughts": (("/thoughts on", "think"), "想一想\n好"),
}
"""By command, the typed lines and the output below the last one."""
DAY = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
SEVERAL = ("focus",)
"""Commands that need two models."""


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pty]:
    """A program that runs one conversation after the other, so that Python starts once."""
    script = str(Path(__file__).with_name("everything.py"))
    program = Pty([script, str(tmp_path_factory.mktemp("talks"))], COLUMNS, LINES, (), {})
    yield program
    program.close()


def begin(talks: Pty, models: int = 1) -> None:
    """End the last conversation and begin one on an empty screen."""
    while not talks.screen.wait(lambda text: ASKS.strip() in text or "ready" in text).endswith(ASKS.strip()):
        talks.type("\x15\x04")
        talks.screen.wait(ASKS.strip())
    talks.screen = Screen(COLUMNS, LINES)
    talks.type(f"{models}\r")
    talks.screen.wait("ready")


@pytest.mark.parametrize("name", [command.name for command in BUILTINS])
def test_a_command_typed_in_a_terminal_has_its_effect(talks: Pty, name: str) -> None:
    (*before, last), expected = CASES[name]
    assert any(line.split()[0] == f"/{name}" for line in (*before, last))
    begin(talks, 2 if name in SEVERAL else 1)

    for line in before:
        talks.type(f"{line}\r")
    talks.type("/seed\r")
    talks.screen.wait("\n> /seed\nseed 0\n")  # it runs when all earlier lines are done, and some commands do not wait
    talks.type(f"{last}\r")

    below = f"\n> {last}\n{expected}\n" + ("" if name == "exit" else "\n>\n")
    talks.screen.wait(lambda text: below in DAY.sub("DAY", text + "\n"))


def test_the_cases_cover_exactly_the_commands() -> None:
    assert list(CASES) == [command.name for command in BUILTINS]
