"""The plugin loader: what plugins register, and that a broken one affects no other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from sftchat import ChatCommand, Metric, Score, Task, UsageError, hookimpl
from sftchat.engine import EngineType
from sftchat.errors import SftchatWarning
from sftchat.plugins.manager import PluginInfo, load_plugins


@dataclass
class Point:
    """An entry point that needs no installed distribution."""

    name: str
    give: Callable[[], Any]
    dist: Any = field(default_factory=lambda: SimpleNamespace(name="dist", version="1.0"))

    def load(self) -> Any:
        return self.give()


def make_task(name: str) -> Task:
    return Task(name, f"about {name}", lambda n, seed: [], lambda example, reply: Score({"n": 1}), (Metric("n", lambda sums: sums["n"]),))


class Tasks:
    """A plugin that registers tasks by the given names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    @hookimpl
    def sftchat_register_tasks(self) -> list[Task]:
        return [make_task(name) for name in self.names]


def fail() -> Any:
    raise RuntimeError("boom\nand more")


def test_a_plugin_registers_its_tasks_under_their_names() -> None:
    registry = load_plugins([Point("b", lambda: Tasks("two")), Point("a", lambda: Tasks("one"))])

    assert list(registry.tasks) == ["one", "two"]
    assert registry.plugins == (PluginInfo("a", "dist 1.0", tasks=("one",)), PluginInfo("b", "dist 1.0", tasks=("two",)))


def test_a_broken_plugin_is_named_with_its_reason_and_the_others_work() -> None:
    registry = load_plugins([Point("bad", fail), Point("good", lambda: Tasks("one"))])

    assert list(registry.tasks) == ["one"]
    assert registry.plugins[0] == PluginInfo("bad", "dist 1.0", problem="RuntimeError: boom and more")


def test_a_misspelt_hook_is_refused() -> None:
    class Misspelt:
        @hookimpl
        def sftchat_register_taks(self) -> list[Task]:
            return []

    (info,) = load_plugins([Point("typo", Misspelt)]).plugins

    assert "unknown hook 'sftchat_register_taks'" in info.problem


def test_a_hook_with_an_unknown_argument_is_refused() -> None:
    class Wrong:
        @hookimpl
        def sftchat_register_tasks(self, colour: str) -> list[Task]:
            return []

    (info,) = load_plugins([Point("wrong", Wrong)]).plugins

    assert "colour" in info.problem


def test_a_hook_that_returns_something_else_is_refused() -> None:
    class Wrong:
        @hookimpl
        def sftchat_register_tasks(self) -> list[str]:
            return ["relation"]

    (info,) = load_plugins([Point("wrong", Wrong)]).plugins

    assert info.problem == "sftchat_register_tasks must return Task objects, got str"


def test_two_plugins_cannot_register_one_task() -> None:
    registry = load_plugins([Point("a", lambda: Tasks("one")), Point("b", lambda: Tasks("one", "two"))])

    assert list(registry.tasks) == ["one"]
    assert registry.plugins[1].problem == "task 'one' is already registered by plugin 'a'"
    with pytest.warns(SftchatWarning, match="^task 'one' is already registered by plugin 'a', so the one that .* brings is not loaded$"):
        registry.task("one")


def test_a_contested_command_does_not_affect_a_task_of_the_same_name() -> None:
    class Talker:
        @hookimpl
        def sftchat_register_chat_commands(self) -> list[ChatCommand]:
            return [ChatCommand("one", "", lambda context, argument: None)]

    registry = load_plugins([Point("a", lambda: Tasks("one")), Point("b", Talker), Point("c", Talker)])

    assert registry.plugins[2].problem == "command 'one' is already registered by plugin 'b'"
    assert registry.task("one").name == "one"
    assert registry.contested == {}


def test_no_third_party_plugin_takes_the_name_of_a_built_in_command() -> None:
    class Commands:
        """A plugin with a chat command."""

        @hookimpl
        def sftchat_register_chat_commands(self) -> list[ChatCommand]:
            return [ChatCommand("exit", "", lambda context, argument: None)]

    ours = SimpleNamespace(name="sftchat", version="1.0")
    registry = load_plugins([Point("aaa", Commands), Point("chat", Commands, ours)])

    assert [(plugin.name, plugin.problem) for plugin in registry.plugins] == [
        ("chat", ""),
        ("aaa", "command 'exit' is already registered by plugin 'chat'"),
    ]


def test_two_distributions_cannot_have_plugins_of_one_name() -> None:
    registry = load_plugins([Point("same", lambda: Tasks("one")), Point("same", lambda: Tasks("two"))])

    assert list(registry.tasks) == ["one"]
    assert registry.plugins[1].problem == "another distribution already has a plugin named 'same'"


def test_one_plugin_cannot_register_a_task_twice() -> None:
    (info,) = load_plugins([Point("a", lambda: Tasks("one", "one"))]).plugins

    assert info.problem == "sftchat_register_tasks returned 'one' twice"


def test_an_engine_type_is_registered_by_its_scheme() -> None:
    class Engines:
        @hookimpl
        def sftchat_register_engines(self) -> list[EngineType]:
            return [EngineType("echo", "repeats", lambda rest, options: SimpleNamespace(name=rest))]  # type: ignore[arg-type, return-value]

    registry = load_plugins([Point("e", Engines)])

    assert registry.engines["echo"].open("x", {}).name == "x"


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        (2, "it needs plugin interface 2 and this sftchat has 1: pip install --upgrade sftchat"),
        (0, "sftchat_plugin_api is 0, must be a whole number such as 1"),
        ("1", "sftchat_plugin_api is '1', must be a whole number such as 1"),
        (1, ""),
    ],
)
def test_a_plugin_for_another_interface_is_reported_with_what_to_install(stated: object, problem: str) -> None:
    plugin = Tasks("one")
    plugin.sftchat_plugin_api = stated  # type: ignore[attr-defined]

    (info,) = load_plugins([Point("a", lambda: plugin)]).plugins

    assert info.problem == problem


def test_a_plugin_for_an_older_interface_may_be_kept_with_an_older_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftchat.plugins.spec.PLUGIN_API", 2)
    monkeypatch.setattr("sftchat.plugins.spec.RELEASES", {1: ">=0.1,<0.4", 2: ">=0.4"})
    plugin = Tasks("one")
    plugin.sftchat_plugin_api = 1  # type: ignore[attr-defined]

    (info,) = load_plugins([Point("a", lambda: plugin)]).plugins

    assert info.problem == (
        "it is for plugin interface 1 and this sftchat has 2: pip install --upgrade dist, or keep it and pip install 'sftchat>=0.1,<0.4'"
    )


def test_a_plugin_that_prints_or_exits_while_it_loads_affects_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    def loud() -> Any:
        sys.stdout.write("hello")
        return Tasks("one")

    def leave() -> Any:
        sys.exit("bye")

    registry = load_plugins([Point("loud", loud), Point("leaving", leave)])

    assert capsys.readouterr() == ("", "hello")
    assert [(info.name, info.problem) for info in registry.plugins] == [("leaving", "SystemExit: bye"), ("loud", "")]


def test_an_unknown_task_suggests_the_nearest_and_names_what_failed_to_load() -> None:
    registry = load_plugins([Point("bad", fail), Point("good", lambda: Tasks("relation", "general"))])

    with pytest.raises(UsageError) as error:
        registry.task("relatoin")

    assert str(error.value) == (
        "unknown task 'relatoin'; did you mean 'relation'? (available: general, relation); not loaded: bad, see 'sftchat plugins'"
    )


def test_every_plugin_is_called_after_an_evaluation() -> None:
    heard: list[Any] = []

    class Listener:
        @hookimpl
        def sftchat_eval_finished(self, report: Any) -> None:
            heard.append(report)

    load_plugins([Point("a", Listener), Point("b", Listener)]).eval_finished("report", None)  # type: ignore[arg-type]

    assert heard == ["report", "report"]


@pytest.mark.parametrize("name", ["", "Upper", "with space", "1st", "名"])
def test_a_task_name_that_cannot_be_typed_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be lower-case"):
        make_task(name)
