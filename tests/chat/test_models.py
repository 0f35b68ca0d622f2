"""Several models in one conversation, and a change of model, adapter or checkpoint during it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sftchat.chat.controller import ChatServices, ModelLoader
from sftchat.chat.pane import Opening
from sftchat.errors import EngineError, ModelError, UsageError
from sftchat.models.manifest import MANIFEST
from sftchat.models.runs import checkpoints_of_model, find_runs
from sftchat.testing import ScriptedEngine
from sftchat.types import SamplingParams
from tests.chat.logged import Log

View = Callable[..., Log]


def echo(name: str) -> ScriptedEngine:
    return ScriptedEngine(lambda request: f"{name}{request.adapter}{len(request.messages)}", chunks=99, name=name)


def answers(log: Log) -> list[str]:
    return [answer.reply.text for answer in log.chat.conversation.path[-1].answers]


def side_by_side(*engines: Any) -> list[Opening]:
    return [Opening(lambda engine=engine: engine, (name,)) for name, engine in zip("abc", engines, strict=False)]


def test_every_message_goes_to_every_model_and_each_sees_its_own_replies(view: View) -> None:
    one, two = echo("one"), echo("two")
    log = view(openings=side_by_side(one, two), system="s")
    log.type("x", "y")

    assert answers(log) == ["one4", "two4"]
    assert [request.messages[2]["content"] for request in (one.requests[1], two.requests[1])] == ["one2", "two2"]
    log.type("/undo", "/set temperature 0.5", "z", "/regen")
    assert [[message["content"] for message in engine.requests[-1].messages][-1] for engine in (one, two)] == ["z", "z"]
    assert [engine.requests[-1].sampling.seed for engine in (one, two)] == [1, 1]


def test_adapters_of_one_base_reply_in_one_batch(view: View) -> None:
    calls: list[list[str]] = []

    class Watched(ScriptedEngine):
        def generate(self, requests: Any) -> Any:
            asked = list(requests)
            calls.append([request.adapter for request in asked])
            return super().generate(asked)

    engine = Watched(lambda request: f"by {request.adapter}", chunks=99)

    def load() -> Watched:
        return engine

    log = view(openings=[Opening(load, ("base",)), Opening(load, ("run",), ("run",))])
    log.type("x")

    assert calls == [["", "run"]]
    assert answers(log) == ["by ", "by run"]
    assert len({pane.engine_thread for pane in log.chat.panes}) == 1


def test_a_model_that_fails_does_not_stop_the_other_and_both_stay_in_step(view: View) -> None:
    one, two = ScriptedEngine(["A", "B"], chunks=9), ScriptedEngine([EngineError("gone"), "C"], chunks=9)
    log = view(openings=side_by_side(one, two))

    assert "error: b: gone; the message is taken back" in log.type("x")
    log.type("y")
    assert answers(log) == ["B", "C"]
    assert [message["content"] for message in two.requests[-1].messages] == ["y"]
    assert [message["content"] for message in one.requests[-1].messages] == ["x", "A", "y"]


def test_only_the_cut_reply_is_continued(view: View) -> None:
    one, two = ScriptedEngine(["abcdef", "ef"], chunks=9), ScriptedEngine(["gh"], chunks=9)
    log = view(openings=side_by_side(one, two), sampling=SamplingParams(max_new_tokens=4))
    log.type("x", "/continue")

    assert answers(log) == ["abcdef", "gh"]
    assert (len(one.requests), len(two.requests)) == (2, 1)


def test_stopping_stops_every_model_and_keeps_partial_replies(view: View) -> None:
    pause = threading.Event()
    log = view(openings=side_by_side(ScriptedEngine(["abc"], pause=pause), ScriptedEngine(["xyz"], pause=pause)))
    log.ready()
    log.chat.submit("go")
    log.until(lambda: {"a", "1: x"} <= set(log.log))

    assert log.chat.stop()
    assert log.chat.state == "ready"
    assert answers(log) == ["a", "x"]
    pause.set()


def test_the_focus_decides_which_model_commands_use(view: View) -> None:
    log = view(openings=side_by_side(echo("one"), echo("two")))
    log.type("x")

    assert log.type("/history", "/focus 2", "/history", "/focus 3") == [
        "note: 1 > x\none1",
        "note: model 2: b",
        "note: 1 > x\ntwo1",
        "error: there is no model 3: the conversation has 2",
    ]
    assert log.chat.engine.name == "two"


def opener(engines: Mapping[str, Any]) -> ChatServices:
    def check(model: str) -> None:
        if model not in engines:
            raise UsageError(f"no model '{model}'")

    def load(model: str) -> Any:
        if isinstance(engines[model], Exception):
            raise engines[model]
        return engines[model]

    return ChatServices(models=ModelLoader(check, load))


def test_another_model_continues_the_conversation_and_one_that_fails_to_load_changes_nothing(view: View) -> None:
    first, other = echo("first"), echo("other")
    log = view(first, services=opener({"other": other, "broken": ModelError("no weights")}))
    log.type("x")

    assert log.type("/model nosuch", "/model broken") == ["error: no model 'nosuch'", "error: no weights; scripted stays"]
    assert log.type("/model other", "y") == [
        "note: other answers from the next message on; /regen asks it the last one again",
        "other3",
        "|",
    ]
    assert [message["content"] for message in other.requests[0].messages] == ["x", "first1", "y"]
    assert [answer.model for node in log.chat.conversation.nodes for answer in node.answers] == ["scripted", "other"]
    assert log.type("/model") == ["note: * other"]


def test_lines_typed_while_another_model_loads_are_queued(view: View) -> None:
    loaded = threading.Event()
    other = echo("other")

    def load(model: str) -> Any:
        assert loaded.wait(60)
        return other

    log = view(echo("first"), services=ChatServices(models=ModelLoader(lambda model: None, load)))
    log.ready()
    log.chat.submit("/model other")
    log.chat.submit("x")
    assert (log.chat.state, list(log.chat.pending)) == ("loading", ["x"])
    loaded.set()
    log.ready()
    assert answers(log) == ["other1"]


class Adapting(ScriptedEngine):
    """A scripted engine with adapters."""

    def __init__(self) -> None:
        super().__init__(lambda request: f"by {request.adapter or 'loaded'}", chunks=99)
        self.added: dict[str, Any] = {}

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self.added)

    def add_adapter(self, name: str, model: str) -> None:
        if "other" in str(model):
            raise ModelError(f"adapter '{model}' was made for another base")
        self.added[name] = model

    def mix_adapters(self, name: str, parts: Mapping[str, float]) -> None:
        self.added[name] = dict(parts)


def test_adapters_are_chosen_loaded_switched_off_and_mixed(view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x", "y", "other"):
        (tmp_path / name).mkdir()
    engine = Adapting()
    log = view(engine)

    assert log.type("/adapter") == ["note: * loaded\n  off"]
    assert log.type("/adapter x", "hello") == ["note: scripted answers with adapter x; /regen asks the last message again", "by x", "|"]
    log.type("/adapter y", "/adapter x+y 0.25", "hello")
    assert (answers(log), engine.added["x+y 0.25"]) == (["by x+y 0.25"], {"x": 0.75, "y": 0.25})
    assert log.type("/adapter off", "/regen")[-2:] == ["by off", "|"]
    assert log.type("/adapter loaded", "/regen")[-2:] == ["by loaded", "|"]
    assert [answer.adapter for node in log.chat.conversation.nodes for answer in node.answers] == ["x", "x+y 0.25", "off", ""]
    assert [line.split(" (")[0] for line in log.type("/adapter other", "/adapter z", "/adapter x+z", "/adapter x+y 7")] == [
        "error: adapter 'other' was made for another base",
        "error: unknown adapter 'z'",
        "error: unknown adapter 'z'",
        "error: weight is '7', must be from 0",
    ]
    assert log.chat.focus.adapter == ""


def test_an_engine_without_adapters_is_reported(view: View) -> None:
    assert view(echo("a")).type("/adapter off") == ["error: scripted takes no adapters"]


def make_run(folder: Path, *steps: int, whole: bool = True) -> Path:
    for place in [*(folder / f"checkpoint-{step}" for step in steps), *([folder] if whole else [])]:
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_text("{}")
        (place / "model.safetensors").write_bytes(b"")
    if whole:
        manifest = dict.fromkeys(("base_identity", "method", "tokens_hash", "template", "template_hash"), "")
        told = {"task": "relation", "base": "nano", "config": {}, "data": [], "rows": 1, "steps": max(steps, default=0)}
        (folder / MANIFEST).write_text(
            json.dumps(manifest | told | {"method": "lora", "scores": {str(step): {"f1": step / 100} for step in steps}})
        )
    return folder


def test_checkpoints_of_a_run_answer_the_same_question_one_after_the_other(view: View, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 9, 20)
    names = [str(run / "checkpoint-9"), str(run / "checkpoint-20"), str(run)]
    assert checkpoints_of_model(names[0]) == checkpoints_of_model(str(run)) == tuple(names)
    engines = {name: echo(f"{step} ") for name, step in zip(names, ("9", "20", "end"), strict=True)}
    log = view(openings=[Opening(lambda: engines[names[0]], (names[0],))], services=opener(engines))
    log.type("x")

    assert log.type("/checkpoint next") == [f"note: {names[1]}: step 20, f1 0.2", "20 1", "|"]
    assert log.type("/checkpoint next") == [f"note: {names[2]}: step 20, f1 0.2", "end 1", "|"]
    assert log.type("/checkpoint next", "/checkpoint 7") == [
        f"error: {names[2]} is the last checkpoint of its run",
        "error: the run has no checkpoint of step 7; it has 9, 20",
    ]
    assert log.type("/checkpoint 9")[1:] == ["9 1", "|"]
    assert log.type("/checkpoint prev") == [f"error: {names[0]} is the first checkpoint of its run"]
    assert log.type("/checkpoint") == [f"note: * step 9, f1 0.09  {names[0]}\n  step 20, f1 0.2  {names[1]}\n  step 20, f1 0.2  {names[2]}"]
    assert len(log.chat.conversation.leaves) == 4


def test_runs_are_listed_newest_first_with_their_description(tmp_path: Path) -> None:
    import os

    old, new = make_run(tmp_path / "old", 5), make_run(tmp_path / "deep" / "er" / "new", 5, whole=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    make_run(tmp_path / ".hidden" / "run", 1)
    for path, when in ((old, 1_000), (new, 2_000)):
        for file in path.rglob("*.json"):
            os.utime(file, (when, when))

    assert [(run.model, run.description) for run in find_runs(tmp_path)] == [("deep/er/new", ""), ("old", "relation, lora of nano")]


class Described(ScriptedEngine):
    precision = "bfloat16"
    summary = "134.5 M parameters, bfloat16, cpu"


def test_parameters_precision_and_device_of_a_model_are_shown_when_it_is_loaded_and_by_model(view: View) -> None:
    engines = (Described(["hi"]), echo("plain"))
    models = ModelLoader(check=lambda model: None, load=lambda model: Described(["hi"]))
    log = view(openings=side_by_side(*engines), services=ChatServices(models=models), announces_models=True)

    assert log.ready() == ["note: a: 134.5 M parameters, bfloat16, cpu"]
    assert log.type("/model") == ["note: * a: 134.5 M parameters, bfloat16, cpu\n  b"]
    assert log.type("/model other") == [
        "note: other (134.5 M parameters, bfloat16, cpu) answers from the next message on; /regen asks it the last one again"
    ]


def test_models_are_described_at_the_start_only_where_that_is_wanted(view: View) -> None:
    assert view(Described(["hi"])).ready() == []
