"""Commands are found, completed and refused in one line; those of plugins are like those of the chat."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from sftchat.chat.commands import BUILTINS, CommandLine, Commands
from sftchat.chat.context import ChatCommand, ChatContext, Fragments, Settings
from sftchat.chat.controller import ChatServices
from sftchat.chat.conversation import Answer, Conversation
from sftchat.chat.pane import EngineThread, ModelPane
from sftchat.engine import Engine
from sftchat.errors import UsageError
from sftchat.testing import ScriptedEngine
from sftchat.types import Reply, SamplingParams
from tests.chat.logged import Log


def shout(context: ChatContext, argument: str) -> None:
    context.info(argument.upper())


def animals(context: ChatContext, argument: str) -> Iterable[str]:
    return ["cat", "cow", "dog"]


SHOUT = ChatCommand("shout", "say it loud", shout, "TEXT", animals)


@dataclass
class Context:
    """A chat without a model."""

    conversation: Conversation = field(default_factory=Conversation)
    settings: Settings = field(default_factory=Settings)
    commands: Commands = field(default_factory=lambda: Commands((*BUILTINS, SHOUT)))
    engine: Engine | None = None
    services: ChatServices = field(default_factory=ChatServices)
    panes: tuple[ModelPane, ...] = ()
    focus: ModelPane = field(default_factory=lambda: ModelPane("scripted", EngineThread(lambda: ScriptedEngine([]), lambda action: None)))
    said: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    over: bool = False

    @property
    def sampling(self) -> SamplingParams:
        return self.settings.sampling

    def info(self, text: str | Fragments) -> None:
        assert isinstance(text, str)
        self.said.append(text)

    def send(self, message: str) -> None:
        self.sent.append(message)

    def exit(self) -> None:
        self.over = True

    def run(self, line: str) -> str:
        parsed = self.commands.parse(line)
        assert parsed.command is not None
        parsed.command.run(self, parsed.text)
        return self.said[-1] if self.said else ""


@pytest.mark.parametrize(
    ("line", "name", "text"),
    [
        ("hello /help", None, "hello /help"),
        ("//etc/passwd?", None, "/etc/passwd?"),
        ("///", None, "//"),
        (" /help", None, " /help"),
        ("/help", "help", ""),
        ("/system  be brief \n and kind ", "system", "be brief \n and kind"),
        ("/system\nbe brief", "system", "be brief"),
    ],
)
def test_a_slash_begins_a_command_and_two_a_message(line: str, name: str | None, text: str) -> None:
    parsed = Commands(BUILTINS).parse(line)

    assert (parsed.command.name if parsed.command else None, parsed.text) == (name, text)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("/rest", "'/rest', did you mean '/reset'"),
        ("/usr/bin", "'/help' lists them"),
        ("/", "'/help' lists them"),
        ("/Help", "did you mean '/help'"),
    ],
)
def test_an_unknown_command_is_reported_with_the_nearest_name(line: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint) as caught:
        Commands(BUILTINS).parse(line)
    assert "\n" not in str(caught.value)
    assert "'//'" in str(caught.value)


@pytest.mark.parametrize(("old", "name"), [("n", "samples"), ("ckpt", "checkpoint"), ("nll", "likelihood")])
def test_a_command_is_found_by_its_earlier_name_and_listed_by_its_present_one(old: str, name: str) -> None:
    commands = Commands(BUILTINS)

    assert commands.parse(f"/{old} 2") == CommandLine(commands[name], "2")
    assert old not in commands


def test_an_alias_does_not_replace_another_command() -> None:
    commands = Commands((ChatCommand("new", "", lambda *_: None, aliases=("old",)), ChatCommand("old", "", lambda *_: None)))

    assert [commands.parse(line).command for line in ("/new", "/old")] == list(commands.values())


def test_no_plugin_replaces_a_built_in() -> None:
    impostor = ChatCommand("reset", "evil", shout)
    commands = Commands((*BUILTINS, impostor, SHOUT))

    assert commands["reset"] is not impostor
    assert commands.shadowed == (impostor,)
    assert [*commands][-1] == "shout"


@pytest.mark.parametrize("name", ["", "Two Words", "/slash", "9lives"])
def test_a_command_that_cannot_be_typed_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case"):
        ChatCommand(name, "", shout)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("/s", [("/system", 2), ("/set", 2), ("/seed", 2), ("/stop", 2), ("/shout", 2)]),
        ("/re", [("/reset", 3)]),
        ("/set overflow d", [("overflow drop-oldest", 10)]),
        ("/shout c", [("cat", 1), ("cow", 1)]),
        ("/set temp", [("temperature ", 4)]),
        ("/help re", [("redo", 2), ("regen", 2), ("reset", 2)]),
        ("/system a", []),
        ("/nosuch a", []),
        ("//s", []),
        ("s", []),
    ],
)
def test_completions(typed: str, found: list[tuple[str, int]]) -> None:
    context = Context()

    assert [(one.text, one.length) for one in context.commands.complete(context, typed)] == found


def test_help_lists_every_command_and_explains_one() -> None:
    context = Context()

    listed = context.run("/help")
    assert [line.split()[0] for line in listed.splitlines() if line.startswith("  /")] == [f"/{name}" for name in context.commands]
    headings = [block.splitlines()[0] for block in listed.split("\n\n")[:-1]]
    assert headings == ["general", "conversation", "settings", "sessions", "models", "looking inside", "data", "display", "plugins"]
    assert context.run("/help shout") == context.run("/help /shout") == "/shout TEXT  say it loud"
    with pytest.raises(UsageError, match="did you mean 'shout'"):
        context.run("/help shot")


def test_the_system_prompt_is_shown_set_and_dropped() -> None:
    context = Context()

    assert "no system prompt" in context.run("/system")
    context.run("/system be brief")
    assert context.conversation.system == "be brief"
    assert context.run("/system") == "be brief"
    context.run("/system off")
    assert context.conversation.system == ""


def test_sampling_is_shown_and_changed_and_an_invalid_value_changes_nothing() -> None:
    context = Context()

    assert "max_new_tokens 256" in context.run("/set").splitlines()
    assert context.run("/set temperature 0.7") == "temperature 0.7"
    assert context.run("/set top-k=5") == "top_k 5"
    assert context.sampling == SamplingParams(temperature=0.7, top_k=5)
    for line, complaint in (
        ("/set temprature 1", "unknown setting 'temprature'; did you mean 'temperature'"),
        ("/set temperature hot", "temperature is 'hot', must be a number"),
        ("/set top_k 1.5", "top_k is '1.5', must be a whole number"),
        ("/set temperature 9", "must be from 0 to 2"),
        ("/set temperature nan", "must be from 0 to 2"),
        ("/set overflow truncate", "unknown way to treat a full context 'truncate'"),
        ("/seed x", "seed is 'x', must be a whole number from 0 on"),
    ):
        with pytest.raises(UsageError, match=complaint):
            context.run(line)
    assert context.sampling == SamplingParams(temperature=0.7, top_k=5)
    assert context.run("/set overflow drop-oldest") == "overflow drop-oldest"
    assert context.run("/seed 7") == "seed 7"
    assert context.settings == Settings(SamplingParams(temperature=0.7, top_k=5, seed=7), "drop-oldest")


def test_without_history_each_message_is_sent_without_earlier_turns(view: Callable[..., Log]) -> None:
    engine = ScriptedEngine(["A", "B", "C"], chunks=9)
    log = view(engine, system="s")

    assert log.type("a", "/set history off", "b", "/set history") == ["A", "|", "note: history off", "B", "|", "note: history off"]
    assert [message["content"] for message in engine.requests[1].messages] == ["s", "b"]
    log.type("/set history on", "c")
    assert [message["content"] for message in engine.requests[2].messages] == ["s", "a", "A", "b", "B", "c"]
    assert log.type("/set history maybe")[-1].startswith("error: history is 'maybe', must be on, or off to ask every message as")


def test_stop_strings_are_added_shown_and_dropped() -> None:
    context = Context()

    assert context.run("/stop") == "stop off"
    assert context.run("/stop \\n\\n") == "stop \\n\\n"
    assert context.run("/set stop 。") == "stop \\n\\n 。"
    assert context.run("/stop 。") == "stop \\n\\n 。"
    assert context.sampling.stop == ("\n\n", "。")
    assert context.run("/stop off") == "stop off"
    assert context.sampling.stop == ()


def test_reset_and_exit() -> None:
    context = Context(Conversation("s").ask("a").answer(Answer(Reply("b"))))

    assert "system prompt stays" in context.run("/reset")
    assert context.conversation.messages == Conversation("s").messages
    context.run("/exit")
    assert context.over
