"""Replies that begin within thoughts because the template opened them: separated from the answer in ask, chat and eval from the first piece."""

from __future__ import annotations

import io
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pluggy
import pytest

from sftchat import EngineType, Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import collect
from sftchat.evaluation.cached_engine import CachedEngine, CacheOptions
from sftchat.evaluation.reply_cache import ReplyCache
from sftchat.inference.local import TransformersEngine
from sftchat.plugins import spec as hookspecs
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine
from sftchat.text import strip_thinking
from sftchat.thinking import with_opening_tag
from sftchat.types import FinishReason, Message, SamplingParams
from tests.evaluation.test_cached_engine import asks, unopened
from tests.inference.endpoint_kit import DONE, delta, end, loopback, stream

CUT = Reply("let me see", "length")
SAID = {"full": "hm\n</think>\n\nfine", "cut": CUT, "plain": "fine"}


class Thinker(ScriptedEngine):
    """Model whose template opens thoughts."""

    def __init__(self) -> None:
        super().__init__(SAID, chunks=3)

    def _prompt(self, request: object) -> str:
        return "user: ?\nassistant: <think>\n"

    def render(self, messages: object) -> str:
        return "user: ?\nassistant: <think>\n"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    class Plugin:
        @hookspecs.hookimpl
        def sftchat_register_engines(self) -> list[EngineType]:
            return [EngineType("think", "thinks", lambda rest, options: Thinker())]

    gold = tmp_path / "gold.jsonl"
    rows = [{"id": name, "messages": [{"role": "user", "content": name}], "gold": "fine"} for name in SAID]
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    manager = pluggy.PluginManager("sftchat")
    manager.add_hookspecs(hookspecs)
    manager.register(Plugin())
    right = lambda example, reply: Score({"n": 1, "right": int(strip_thinking(reply.text).strip() == example.gold)})  # noqa: E731
    task = Task("quiz", "a quiz", lambda n, seed: (), right, (rate("accuracy", "right"),), evalsets={"gold": gold})
    return Session(given_registry=Registry(manager, {"quiz": task}, engines={"think": Plugin().sftchat_register_engines()[0]}))


def test_an_evaluation_counts_replies_cut_within_thoughts(session: Session, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["eval", "think:x", "--task", "quiz", "-o", str(tmp_path / "out")], obj=session) == 0

    found = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["results"][0]
    assert "1 truncated, 1 cut while thinking" in capsys.readouterr().out
    assert (found["n"], found["truncated"], found["cut_thinking"], found["metrics"][0]["value"]) == (3, 1, 1, pytest.approx(2 / 3))
    # the same from the replies that were written
    written = tmp_path / "out" / found["replies"]
    assert main(["eval", "--replies", str(written), "--task", "quiz"], obj=session) == 0
    assert "1 truncated, 1 cut while thinking" in capsys.readouterr().out


def test_ask_streams_thoughts_separately_and_a_reply_without_thoughts_as_the_answer(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    for how in ([], ["--no-stream"]):
        assert main(["ask", "think:x", "full", *how], obj=session) == 0
        assert capsys.readouterr() == ("fine\n", "")
        assert main(["ask", "think:x", "plain", *how], obj=session) == 0
        assert capsys.readouterr() == ("fine\n", "")
        assert main(["ask", "think:x", "cut", "--show-thinking", *how], obj=session) == 3
        out, err = capsys.readouterr()
        assert (out, err.splitlines()[0]) == ("\n", "let me see")
    assert main(["ask", "think:x", "full", "--json"], obj=session) == 0
    assert {name: json.loads(capsys.readouterr().out)[name] for name in ("reply",)} == {"reply": "fine"}


def test_a_chat_without_a_terminal_writes_only_answers(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("full\ncut\nplain\n"))
    assert main(["chat", "think:x"], obj=session) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("fine\n\nfine\n", "cut while thinking, at 10 tokens; '/set max_new_tokens N' allows more\n")

    monkeypatch.setattr(sys, "stdin", io.StringIO('{"message": "full"}\n{"message": "cut"}\n{"message": "plain"}\n'))
    assert main(["chat", "think:x", "--jsonl"], obj=session) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["reply"], row.get("thoughts")) for row in rows if row["type"] == "reply"] == [
        ("fine", "hm"), ("", "let me see"), ("fine", None),
    ]  # fmt: skip


def test_two_models_without_a_terminal_write_lines_of_answers(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("full\nplain\n"))

    assert main(["chat", "think:x", "think:y"], obj=session) == 0
    assert capsys.readouterr().out == "think:x: fine\nthink:y: fine\n" * 2


def test_a_cached_reply_equals_the_generated_one(tmp_path: Path) -> None:
    store = ReplyCache(tmp_path / "replies.sqlite", pytest.fail)
    options = CacheOptions(store, lambda name: "ab" * 32)
    try:
        first = dict(collect(CachedEngine("m", lambda name: Thinker(), options), asks(*SAID)))
        assert dict(collect(CachedEngine("m", unopened, options), asks(*SAID))) == first
    finally:
        store.close()
    assert [reply.text for reply in first.values() if isinstance(reply, Reply)] == [
        "<think>\nhm\n</think>\n\nfine",
        "<think>\nlet me see",
        "fine",
    ]


@pytest.mark.parametrize(
    ("text", "why", "tagged"),
    [
        ("hm</think>a", "stop", "<think>\nhm</think>a"),
        ("\nhm</think>a", "length", "<think>\nhm</think>a"),
        ("hm", "length", "<think>\nhm"),
        ("hm", "cancelled", "<think>\nhm"),
        ("all answer", "stop", "all answer"),
    ],
)
def test_the_tag_that_the_template_wrote_is_restored_where_there_are_thoughts(text: str, why: FinishReason, tagged: str) -> None:
    assert with_opening_tag(text, why) == tagged


@pytest.mark.parametrize(("source", "opened"), [("<think>\n", True), ("<think>", True), ("<think>\n\n</think>\n\n", False), ("", False)])
def test_a_local_model_reports_that_its_template_opens_thoughts(tiny_checkpoint: Path, source: str, opened: bool) -> None:
    from sftchat.engine import Request
    from sftchat.inference.open import load_engine

    engine = load_engine(str(tiny_checkpoint), {})
    assert isinstance(engine, TransformersEngine)
    renderer = engine.loaded.renderer
    text = renderer.source + "{%- if add_generation_prompt and not quiet %}{{ '" + source.replace("\n", "\\n") + "' }}{%- endif %}"
    thinker = TransformersEngine("thinks", replace(engine.loaded, renderer=replace(renderer, source=text)))
    request = Request("r", (Message(role="user", content="hi"),), sampling=SamplingParams(max_new_tokens=3))

    assert {chunk.thoughts_opened for chunk in thinker.generate([request])} == {opened}
    assert {chunk.thoughts_opened for chunk in thinker.generate([replace(request, template_arguments={"quiet": True})])} == {False}


def late(show: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Return the output of ``ask`` for thoughts that a server sends without an opening tag."""
    with loopback([stream(delta("let me"), delta(" see</think>\n\n"), delta("Paris"), end(), DONE)]) as server, warnings.catch_warnings():
        assert main(["ask", server.url, "?", *show]) == 0
    out, err = capsys.readouterr()
    return out, err


def test_ask_reports_text_that_was_written_before_the_tag_arrived(capsys: pytest.CaptureFixture[str]) -> None:
    words = "what was shown before </think> are thoughts, no part of the reply: their opening tag is not sent"

    assert late([], capsys) == ("let me\nParis\n", f"sftchat: {words}; --no-stream leaves them out\n")
    assert late(["--no-stream"], capsys) == ("Paris\n", "")


def test_a_chat_without_a_terminal_separates_text_written_before_the_tag_from_the_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("?\n"))
    script = stream(delta("let me"), delta(" see</think>\n\n"), delta("Paris"), end(), DONE)
    with loopback([script]) as server:
        assert main(["chat", server.url]) == 0
    assert capsys.readouterr().out == "let me\nParis\n"

    monkeypatch.setattr(sys, "stdin", io.StringIO("?\n"))
    with loopback([script, script]) as server:
        named = f"{server.url}#small"
        assert main(["chat", server.url, named]) == 0
        assert capsys.readouterr().out == f"{server.url}: Paris\n{named}: Paris\n"
