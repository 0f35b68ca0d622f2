"""Every call of third-party code, with a plugin that exits, raises, or returns something else than it should."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import fsum, log
from pathlib import Path
from typing import Any

import pytest

from sftchat import (
    ChatCommand,
    Chunk,
    EngineError,
    EngineType,
    Example,
    Message,
    PluginError,
    Reply,
    Request,
    Score,
    Task,
    TrainingDefaults,
    UsageError,
    hookimpl,
    rate,
)
from sftchat._util.plugin_calls import MAX_MESSAGE_LENGTH, Malformed, call_plugin, copy_example, copy_json, iterate_plugin
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.data.generate import generate_examples
from sftchat.engine import Counts, Engine, Renders, collect
from sftchat.errors import class_and_message, format_position, message_of
from sftchat.inference.guarded import open_guarded, plain_chunk
from sftchat.likelihood import Likelihood, format_likelihoods
from sftchat.plugins.manager import load_plugins
from sftchat.task import row_problems, score_reply, training_defaults
from sftchat.testing import ScriptedEngine, chat_with, plugin_manager_with
from sftchat.types import Choice, Token


def leaves(*_: Any, **__: Any) -> Any:
    sys.exit(0)


LEAVES = f"in {__file__}:{leaves.__code__.co_firstlineno + 1}: SystemExit: 0"


def rows(n: int, seed: int) -> Iterator[Example]:
    for index in range(n):
        yield Example((Message(role="user", content=f"q{index}"),), "a", f"{seed}-{index}", {"tags": ["x"]})


TASK = Task("odd", "an odd one", rows, lambda example, reply: Score({"n": 1}), (rate("x", "n"),))
EXAMPLE = next(iter(rows(1, 0)))


def error_of(call: Callable[[], Any]) -> str:
    with pytest.raises(PluginError) as caught:
        call()
    return str(caught.value)


# --- calls


def test_an_error_names_the_function_the_item_and_the_line() -> None:
    assert error_of(lambda: call_plugin("the oracle", leaves, doing="on item 'i7'")) == f"the oracle failed on item 'i7', {LEAVES}"
    assert error_of(lambda: call_plugin("the oracle", leaves)) == f"the oracle failed, {LEAVES}"


def test_a_call_with_wrong_arguments_names_no_line_of_sftchat() -> None:
    assert error_of(lambda: call_plugin("the oracle", lambda one: one)).startswith("the oracle failed: TypeError: ")


def test_the_user_may_still_interrupt() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_plugin("the oracle", interrupted)


def test_a_refusal_passes_only_where_a_plugin_may_refuse() -> None:
    def refuses() -> None:
        raise UsageError("no such option")

    with pytest.raises(UsageError, match="^no such option$"):
        call_plugin("the oracle", refuses, may_refuse=True)
    assert error_of(lambda: call_plugin("the oracle", refuses)).endswith("UsageError: no such option")


def test_an_endless_message_is_cut() -> None:
    def shouts() -> None:
        raise ValueError("a" * 10_000)

    assert len(error_of(lambda: call_plugin("the oracle", shouts))) < MAX_MESSAGE_LENGTH + 200


def test_an_iterator_is_advanced_step_by_step_and_closed() -> None:
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield 1
            yield 2
            leaves()
        finally:
            closed.append(True)

    given = iterate_plugin("the oracle", numbers(), doing=lambda: "counting")
    assert [next(given), next(given)] == [1, 2]
    assert error_of(lambda: next(given)) == f"the oracle failed counting, {LEAVES}"
    stopped = iterate_plugin("the oracle", numbers())
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert closed == [True, True]


def test_an_iterator_that_cannot_be_closed_is_an_error_of_its_plugin() -> None:
    def stubborn() -> Iterator[int]:
        try:
            yield 1
        finally:
            leaves()

    given = iterate_plugin("the oracle", stubborn())
    next(given)
    assert error_of(given.close) == f"the oracle failed, {LEAVES}"  # type: ignore[attr-defined]


def test_an_exception_that_cannot_be_formatted_ends_nothing() -> None:
    class Mute(BaseException):
        def __str__(self) -> str:
            leaves()
            return ""

    assert (message_of(Mute()), class_and_message(Mute())) == ("(its message cannot be read)", "Mute: (its message cannot be read)")
    assert format_position(Mute()) == ""


# --- tasks


@pytest.mark.parametrize(
    ("generate", "message"),
    [
        (leaves, f"the generator of task 'odd' failed after 0 rows, {LEAVES}"),
        (lambda n, seed: None, "the generator of task 'odd' failed after 0 rows: TypeError: 'NoneType' object is not iterable"),
        (lambda n, seed: (leaves() if k == 2 else row for k, row in enumerate(rows(n, seed))), f"the generator of task 'odd' failed after 2 rows, {LEAVES}"),
        (lambda n, seed: ["q"] * n, "the generator of task 'odd' gives a str, must give sftchat.Example (after 0 rows)"),
        (
            lambda n, seed: (replace(row, gold=3) for row in rows(n, seed)),
            "the generator of task 'odd' gives the gold reply 3, must be text (after 0 rows)",
        ),
        (
            lambda n, seed: (replace(row, messages=("q",)) for row in rows(n, seed)),
            "the generator of task 'odd' gives the turn 'q', must have a role and a content that are text (after 0 rows)",
        ),
        (
            lambda n, seed: (replace(row, id=3) for row in rows(n, seed)),
            "the generator of task 'odd' gives the id 3 and the source '', must be text (after 0 rows)",
        ),
        (
            lambda n, seed: (replace(row, metadata=3) for row in rows(n, seed)),
            "the generator of task 'odd' gives the metadata 3, must be a mapping (after 0 rows)",
        ),
    ],
)  # fmt: skip
def test_a_generator_that_yields_no_examples_is_named(generate: Any, message: str) -> None:
    assert error_of(lambda: list(generate_examples(replace(TASK, generate=generate), 3, 0))) == message


def test_one_row_that_is_changed_for_every_example_gives_many() -> None:
    def refilled(n: int, seed: int) -> Iterator[Example]:
        message = Message(role="user", content="")
        metadata: dict[str, Any] = {}
        example = Example((message,), "a", "", metadata)
        for index in range(n):
            message["content"] = f"q{index}"
            metadata["number"] = [index]
            object.__setattr__(example, "id", str(index))
            yield example

    made = list(generate_examples(replace(TASK, generate=refilled), 3, 0))

    assert [(row.id, row.messages[0]["content"], row.metadata) for row in made] == [(str(k), f"q{k}", {"number": [k]}) for k in range(3)]


def test_a_generator_may_refuse_a_value_of_an_option() -> None:
    def refuses(n: int, seed: int, *, size: int = 1) -> Iterator[Example]:
        raise ValueError("size is too large")
        yield EXAMPLE

    with pytest.raises(UsageError, match="^task 'odd': size is too large$"):
        list(generate_examples(replace(TASK, generate=refuses), 1, 0, {"size": 9}))


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        (leaves, f"the check of task 'odd' failed on 0-0, {LEAVES}"),
        (lambda example: (leaves() for _ in range(1)), f"the check of task 'odd' failed on 0-0, {LEAVES}"),
        (lambda example: None, "the check of task 'odd' failed on 0-0: TypeError: 'NoneType' object is not iterable"),
        (lambda example: "too long", "the check of task 'odd' gives 'too long', must give a list of problems (on 0-0)"),
        (lambda example: [3], "the check of task 'odd' gives 3 among problems, must be text (on 0-0)"),
    ],
)
def test_a_row_check_that_returns_no_list_is_named(problems: Any, message: str) -> None:
    assert error_of(lambda: row_problems(replace(TASK, validate_row=problems), EXAMPLE)) == message


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (leaves, f"the trainer hook of task 'odd' failed, {LEAVES}"),
        (lambda method, parameters: None, "the trainer hook of task 'odd' returns NoneType, must return sftchat.TrainingDefaults"),
        (lambda method, parameters: TrainingDefaults(epochs="3"), "the trainer hook of task 'odd' wants epochs '3', must be a number"),
        (lambda method, parameters: TrainingDefaults(rows=1.5), "the trainer hook of task 'odd' wants rows 1.5, must be a whole number"),
    ],
)
def test_a_trainer_hook_that_returns_no_defaults_is_named(hook: Any, message: str) -> None:
    assert error_of(lambda: training_defaults(replace(TASK, training_defaults=hook), "full", 0)) == message


def test_a_scorer_that_changes_its_example_changes_no_other() -> None:
    def vandal(example: Example, reply: Reply) -> Score:
        example.messages[0]["content"] = ""
        example.metadata["tags"].append("y")
        object.__setattr__(example, "id", "other")
        return Score({"n": 1})

    before = copy_json(list(EXAMPLE.messages)), copy_json(dict(EXAMPLE.metadata)), EXAMPLE.id
    score_reply(replace(TASK, score=vandal), EXAMPLE, Reply("a"))

    assert (list(EXAMPLE.messages), dict(EXAMPLE.metadata), EXAMPLE.id) == before


def test_a_copy_of_an_example_is_equal_and_shares_nothing_that_changes() -> None:
    example = replace(EXAMPLE, metadata={"a": [{"b": (1, [2])}], "path": Path("x"), "set": {1}})
    copy = copy_example(example)

    assert copy == example
    assert copy.metadata["a"][0]["b"][1] is not example.metadata["a"][0]["b"][1]
    assert copy.metadata["set"] is not example.metadata["set"]


# --- engines


class Answers:
    name = "odd"

    def __init__(self, *chunks: Any) -> None:
        self.chunks = chunks

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        for request in requests:
            for chunk in self.chunks:
                yield chunk() if callable(chunk) else replace(chunk, request_id=request.id) if isinstance(chunk, Chunk) else chunk

    def close(self) -> None:
        pass


def opened(engine: Any) -> Engine:
    return open_guarded(EngineType("odd", "odd", lambda rest, options: engine() if callable(engine) else engine), "x", {})


def asked(engine: Engine) -> list[Any]:
    return list(collect(engine, [Request("r", EXAMPLE.messages)]))


def test_the_engine_of_a_plugin_gives_likelihoods_by_its_choices() -> None:
    request = Request("r", EXAMPLE.messages, continuations=("ab", "c"), ended=True)
    scored = opened(ScriptedEngine([], likeliest=[{"a": 0.5}, {"b": 0.25}, {"\n": 0.5}]))

    (found,) = collect(scored, [request])

    ab = Likelihood(fsum([log(0.5), log(0.25), log(0.5)]), 3, 2, True)
    c = Likelihood(fsum([log(0.001), log(0.001)]), 2, 1, False)
    assert found == ("r", Reply(format_likelihoods([ab, c])))


def test_an_engine_that_computes_no_likelihoods_is_named() -> None:
    request = Request("r", EXAMPLE.messages, continuations=("a",))

    with pytest.raises(EngineError, match="^the engine of 'odd' computes no likelihoods; checkpoint folders, GGUF files and servers"):
        list(collect(opened(Answers()), [request]))


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (leaves, f"failed, {LEAVES}"),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        ("text", "yields 'text', must yield sftchat.Chunk"),
        (Chunk("r", text=3), "yields a chunk whose text is 3, must be text"),
        (
            Chunk("r", finish_reason="done"),
            "yields a chunk whose finish_reason is 'done', must be one of stop, length, cancelled, error, or None",
        ),
        (Chunk("r", token_ids=(1.5,)), "yields a chunk whose token_ids is 1.5, must be a whole number from 0"),
        (Chunk("r", prompt_tokens=-1), "yields a chunk whose prompt_tokens is -1, must be a whole number from 0"),
        (Chunk("r", logprobs=(None,)), "failed: TypeError: "),
        (Chunk("r", choices=("a",)), "yields a chunk with 'a' among its choices, must be sftchat.Choice"),
        (Chunk("r", choices=(Choice("a", -1.0),)), "yields a chunk with 'a' among its choices, must be sftchat.Token with a text"),
        (Chunk("r", choices=(Choice(Token(1, "a"), -1.0, -1),)), "yields a chunk whose choices is -1, must be a whole number from 0"),
    ],
)
def test_an_engine_that_yields_something_else_than_chunks_is_named(chunk: Any, message: str) -> None:
    found = error_of(lambda: asked(opened(Answers(chunk))))

    assert found.startswith("engine 'odd' ")
    assert message in found


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (leaves, f"engine 'odd' failed, {LEAVES}"),
        (lambda: None, "engine 'odd' opened a NoneType, which has not all of name, generate and close"),
        (lambda: type("Nameless", (Answers,), {"name": 3})(), "engine 'odd' opened a model of the name 3, must be text"),
    ],
)
def test_an_object_that_is_not_an_engine_is_named(engine: Any, message: str) -> None:
    assert error_of(lambda: opened(engine)) == message


def test_an_engine_that_fails_when_it_is_closed_is_named() -> None:
    engine = opened(type("Stubborn", (Answers,), {"close": leaves})())

    assert error_of(engine.close) == f"engine 'odd' failed, {LEAVES}"


def test_an_engine_may_raise_its_own_errors() -> None:
    def gone() -> Chunk:
        raise EngineError("the server is gone")

    with pytest.raises(EngineError, match="^the server is gone$"):
        asked(opened(Answers(gone)))


def test_a_guarded_engine_replies_and_keeps_its_abilities() -> None:
    engine = opened(ScriptedEngine(["hello"], name="odd"))

    assert asked(engine) == [("r", Reply("hello", "stop", 20, 5))]
    assert isinstance(engine, Renders)
    assert isinstance(engine, Counts)
    assert (engine.context_length, engine.render(EXAMPLE.messages)) == (2048, "user: q0\nassistant: ")
    plain = opened(Answers(Chunk("r", "a", (1,), "stop")))
    assert not isinstance(plain, Renders)
    assert asked(plain) == [("r", Reply("a", "stop", 0, 1))]
    assert plain.chunks  # type: ignore[attr-defined]


def test_an_engine_that_changes_its_requests_affects_nothing() -> None:
    class Vandal(Answers):
        def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
            for request in requests:
                request.messages[0]["content"] = ""
                yield Chunk(request.id, "a", (1,), "stop")

    asked(opened(Vandal()))

    assert EXAMPLE.messages[0]["content"] == "q0"


def test_a_chunk_has_only_plain_values() -> None:
    class Text(str):
        pass

    assert type(plain_chunk(Chunk("r", Text("a"), [True])).text) is str  # type: ignore[arg-type]
    choice = Choice(Token(-1, "a", data=(228,)), -0.5, 1, ((Token(-1, "b"), -0.1),))
    assert plain_chunk(Chunk("r", choices=[choice])) == Chunk("r", choices=(choice,))  # type: ignore[arg-type]
    with pytest.raises(Malformed):
        plain_chunk(None)


def test_an_identity_that_is_not_text_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from sftchat.inference.guarded import identity_of

    kind = EngineType("odd", "odd", lambda rest, options: Answers(), lambda rest, options: 3)  # type: ignore[arg-type,return-value]
    assert error_of(lambda: identity_of(kind, "x", {})) == "engine 'odd' gives the identity 3, must be text"
    assert error_of(lambda: identity_of(replace(kind, identify=leaves), "x", {})) == f"engine 'odd' failed, {LEAVES}"


def test_an_engine_that_exits_ends_a_command_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    class Plugin:
        @hookimpl
        def sftchat_register_engines(self) -> list[EngineType]:
            return [EngineType("odd", "odd", lambda rest, options: Answers(leaves))]

    session = Session(given_registry=plugin_manager_with(Plugin()))

    assert main(["ask", "odd:x", "hi"], obj=session) == 3
    assert capsys.readouterr() == ("", f"sftchat: error: engine 'odd' failed, {LEAVES}\n")


# --- hooks


def test_callback_hooks_are_called_separately_with_copies_and_named() -> None:
    from sftchat.training.config import TrainingConfig

    class Gives:
        @hookimpl
        def sftchat_trainer_callbacks(self, task: Task, config: TrainingConfig) -> list[str]:
            object.__setattr__(task, "name", "other")
            object.__setattr__(config, "epochs", 99.0)
            return ["callback"]

    class Leaves:
        @hookimpl
        def sftchat_trainer_callbacks(self) -> list[str]:
            return leaves()  # type: ignore[no-any-return]

    config = TrainingConfig()

    assert plugin_manager_with(Gives()).trainer_callbacks(TASK, config) == [("0-Gives", "callback")]
    assert (TASK.name, config.epochs) == ("odd", 3.0)
    found = error_of(lambda: plugin_manager_with(Gives(), Leaves()).trainer_callbacks(TASK, config))
    assert found == f"hook sftchat_trainer_callbacks of plugin '1-Leaves' failed, {LEAVES}"


def test_a_registering_hook_that_exits_affects_only_its_plugin() -> None:
    class Leaves:
        @hookimpl
        def sftchat_register_tasks(self) -> list[Task]:
            return leaves()  # type: ignore[no-any-return]

    with pytest.raises(PluginError, match=r"^plugin Leaves: SystemExit: 0$"):
        plugin_manager_with(Leaves())
    assert load_plugins([]).plugins == ()


# --- trainer callbacks


@pytest.mark.slow  # imports transformers
def test_a_trainer_callback_that_exits_is_named_with_its_event() -> None:
    transformers = pytest.importorskip("transformers")
    from sftchat.training.callbacks import guard_callback

    class Leaves(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            return leaves()

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            return "stop"

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            self.saved = control
            return control

    made = Leaves()
    callback = guard_callback("odd", made)
    control = transformers.TrainerControl()

    assert callback is made
    assert (isinstance(callback, Leaves), type(callback).__name__) == (True, "Leaves")
    what = "trainer callback Leaves of plugin 'odd'"
    assert error_of(lambda: callback.on_step_end(None, None, control)) == f"{what} failed in on_step_end, {LEAVES}"
    assert (
        error_of(lambda: callback.on_log(None, None, control))
        == f"{what} returns str from on_log, must return the control or None (in on_log)"
    )
    assert callback.on_save(None, None, control) is made.saved is control
    assert callback.on_epoch_end(None, None, control) is None
    assert error_of(lambda: guard_callback("odd", "callback")) == "trainer callback str of plugin 'odd' is no transformers TrainerCallback"
    assert isinstance(guard_callback("odd", Leaves), Leaves)


# --- chat commands


def test_a_chat_command_that_exits_is_one_line_and_the_chat_continues() -> None:
    class Plugin:
        @hookimpl
        def sftchat_register_chat_commands(self) -> list[ChatCommand]:
            def works(context: Any, argument: str) -> None:
                context.work("counting", leaves, lambda result: None)

            def ends(context: Any, argument: str) -> None:
                context.work("counting", lambda engine, work: 1, leaves)

            return [
                ChatCommand("leave", "leave", leaves),
                ChatCommand("never", "never", leaves, unavailable_reason=leaves),
                ChatCommand("works", "work", works),
                ChatCommand("ends", "end", ends),
            ]

    shown = chat_with(ScriptedEngine(["hello"]), ["/leave", "/never", "/works", "/ends", "hi"], Plugin())

    assert [one.notes for one in shown[:4]] == [
        f"sftchat: error: /leave failed, {LEAVES}\n",
        f"sftchat: error: /never failed, {LEAVES}\n",
        "sftchat: error: SystemExit: 0\n",
        f"sftchat: error: counting failed, {LEAVES}\n",
    ]
    assert shown[4].replies == "hello\n"


def test_completions_that_fail_are_empty() -> None:
    from sftchat.chat.commands import Commands

    commands = Commands(
        (ChatCommand("odd", "odd", leaves, complete=leaves), ChatCommand("never", "never", leaves, unavailable_reason=leaves))
    )

    assert list(commands.complete(None, "/odd x")) == []  # type: ignore[arg-type]
    assert [found.text for found in commands.complete(None, "/")] == ["/odd"]  # type: ignore[arg-type]


def test_standard_streams_that_a_plugin_replaces_are_restored() -> None:
    streams = sys.stdout, sys.stderr

    def takes() -> int:
        sys.stdout = sys.stderr = None  # type: ignore[assignment]
        return 1

    def takes_and_fails() -> int:
        takes()
        raise ValueError("no")

    assert (call_plugin("it", takes), sys.stdout, sys.stderr) == (1, *streams)
    assert error_of(lambda: call_plugin("it", takes_and_fails)).endswith("ValueError: no")
    assert (sys.stdout, sys.stderr) == streams
