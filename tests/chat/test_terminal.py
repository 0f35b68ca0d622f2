"""The chat on an in-process screen: keys in, screen contents out."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from sftchat.chat.context import Style
from sftchat.chat.controller import ChatServices, ModelLoader
from sftchat.chat.safe_text import escape_controls, wrap_words
from sftchat.chat.ui import replies
from sftchat.errors import EngineError, ModelError
from sftchat.testing import ScriptedEngine
from sftchat.types import SamplingParams
from tests.chat.conftest import Chat, Screen
from tests.test_hardening import commands_in

Start = Callable[..., Chat]
LONG = SamplingParams(max_new_tokens=100_000)
ALPHABET = "的一是不了人我在有他这，。！？「」：、 ab cde,.  \n\n🙂🎉éñ한국어かな０１"


def echo(request: Any) -> str:
    return f"你说：{request.messages[-1]['content']}"


def random_text(chance: random.Random) -> str:
    length = chance.choice([0, 1, 5, 30, 120, 400])
    text = "".join(chance.choice(ALPHABET) for _ in range(length))
    return text if chance.random() < 0.8 else text.replace("\n", "")


def random_pieces(chance: random.Random, text: str) -> list[str]:
    cuts = sorted(chance.sample(range(len(text) + 1), min(len(text), chance.choice([0, 2, 10, 60]))))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@pytest.mark.parametrize("columns", [7, 13, 24, 40, 81])
def test_the_scrollback_is_the_reply_for_any_split(chat: Start, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(replies, "FRAME_SECONDS", 0.0)  # one frame per piece, as far as the loop keeps up
    chance = random.Random(columns)
    texts = [random_text(chance) for _ in range(20)]
    cut = [random_pieces(chance, text) for text in texts]
    talk = chat(ScriptedEngine([*cut], context_length=10_000_000), columns, 9, sampling=LONG)

    for number in range(len(texts)):
        talk.say(str(number))
    seen = talk.leave()

    expected = Screen(columns, 9)  # what a terminal shows when the text is printed
    expected.feed(seen.split("\n\n", 1)[0].replace("\n", "\r\n") + "\r\n")
    for number, text in enumerate(texts):
        ends = "" if not text or text.endswith("\n") else "\n"
        empty = "" if text else "\n".join([*wrap_words("the model said nothing", columns, len), ""])
        expected.feed(f"\n> {number}\n{text}{ends}{empty}".replace("\n", "\r\n"))
    assert seen == expected.text()


def test_the_unfinished_line_is_on_the_screen_above_the_input(chat: Start) -> None:
    go_on = threading.Event()
    talk = chat(ScriptedEngine([["第一行\n第二", "行\n"]], pause=go_on), 40, 12)
    talk.type("hello\rnext 问")

    seen = talk.screen.wait(lambda text: "第二" in text and "next 问" in text)
    assert seen.split("> hello\n")[1].startswith("第一行\n第二\n\n> next 问\nscripted · replying, ctrl-c stops")
    go_on.set()
    seen = talk.screen.wait("第二行\n")
    assert "> next 问" in seen
    assert seen.count("第二") == 1


def test_a_line_higher_than_the_screen_shows_its_end_and_ends_whole(chat: Start) -> None:
    go_on = threading.Event()
    text = "".join(chr(ord("一") + number) for number in range(300))
    talk = chat(ScriptedEngine([[text[:250], text[250:]]], pause=go_on), 20, 10, sampling=LONG)
    talk.type("x\r")

    seen = talk.screen.wait(text[240:250])
    assert "\n> \n" not in seen.split("> x")[1].split(text[240:250])[0]
    assert seen.rstrip("\n").split("\n")[-1].startswith("scripted")
    go_on.set()
    talk.screen.wait(text[-10:])
    assert talk.leave().split("> x\n")[1].replace("\n", "") == text


def test_escape_sequences_are_shown_and_not_executed(chat: Start) -> None:
    nasty = "a\x1b[2J\x1b[Hb\x1b]0;owned\x07\x9b31mc\rd\x08\x1b[6n\ttab\u202etxt"
    talk = chat(ScriptedEngine([list(nasty)]), 80, 12)

    talk.say("x")

    assert escape_controls(nasty).expandtabs(8) in talk.leave()
    assert "\x1b]0;owned" not in talk.screen.raw
    assert "\x1b[6n" not in talk.screen.raw
    assert talk.chat.conversation.turns[0].reply is not None
    assert talk.chat.conversation.turns[0].reply.text == nasty


def test_no_character_from_outside_controls_the_screen(chat: Start) -> None:
    codes = (
        *range(1, 0x20),
        *range(0x7F, 0xA0),
        0xAD,
        0x200B,
        *range(0x200E, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2060, 0x2070),
        0xFEFF,
        0xE0041,
    )
    nasty = "".join(f"{chr(code)}." for code in codes if chr(code) != "\n")
    talk = chat(ScriptedEngine([[nasty, EngineError(f"broke {nasty}")]]), 120, 12, names=[f"model {nasty}"])

    talk.say("x")
    talk.screen.wait("broke")
    talk.leave()

    ours = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[78]", "", talk.screen.raw)
    assert commands_in(re.sub("[\r\b\t]", "", ours)) == []


def test_a_paste_of_several_lines_is_one_message(chat: Start) -> None:
    engine = ScriptedEngine(echo)
    talk = chat(engine)

    talk.type("\x1b[200~第一行\r\nline two\rthird\n\x1b[201~")
    talk.screen.wait("\n  third\n")
    assert engine.requests == []
    talk.say("")

    assert [request.messages[-1]["content"] for request in engine.requests] == ["第一行\nline two\nthird\n"]
    assert "> 第一行\n  line two\n  third" in talk.leave()


@pytest.mark.parametrize("newline", ["\n", "\x1b\r"], ids=["ctrl-j", "esc-enter"])
def test_enter_sends_and_other_keys_start_a_new_line(chat: Start, newline: str) -> None:
    engine = ScriptedEngine(echo)
    talk = chat(engine)

    talk.say(f"one{newline}two")

    assert engine.requests[0].messages[-1]["content"] == "one\ntwo"
    assert "你说：one\ntwo\n" in talk.leave() + "\n"


def test_an_empty_line_sends_nothing_and_is_removed(chat: Start) -> None:
    engine = ScriptedEngine(echo)
    talk = chat(engine)

    talk.type("\r  \r")
    talk.type("\x15")
    talk.say("x")

    assert len(engine.requests) == 1


def test_start_notes_are_shown_under_the_greeting(chat: Start) -> None:
    talk = chat(ScriptedEngine(["a"]), start_notes=["the disk is full", "so is the moon"])
    talk.say("q")

    assert talk.leave() == ("chat with scripted; /help lists the commands, ctrl-d leaves\nthe disk is full\nso is the moon\n\n> q\na")


def test_the_prompt_is_shown_before_the_model_is_loaded_and_lines_are_queued(chat: Start) -> None:
    loaded = threading.Event()
    engine = ScriptedEngine(echo)

    def load() -> ScriptedEngine:
        assert loaded.wait(60)
        return engine

    talk = chat(load)
    talk.screen.wait("scripted · loading")
    talk.type("你好\rsecond\rthird")
    talk.screen.wait("waits: 你好\n  waits: second\n\n> third\nscripted · loading")
    loaded.set()
    seen = talk.screen.wait("你说：second")

    assert seen.index("> 你好\n你说：你好\n\n> second\n你说：second") < seen.index("> third")
    assert "waits" not in talk.screen.wait("scripted · ready")


def test_ctrl_c_clears_then_stops_then_warns_then_exits(chat: Start) -> None:
    go_on = threading.Event()
    talk = chat(ScriptedEngine(["床前明月光", "again"], chunks=2, pause=go_on))
    talk.type("x\r")
    talk.screen.wait("床前\n")
    talk.type("half a thought")
    talk.screen.wait("> half a thought")

    talk.type("\x03")
    talk.screen.wait(lambda text: "thought" not in text)
    assert talk.chat.state == "generating"
    talk.type("\x03")
    talk.screen.wait("> x\n床前\nstopped; the partial reply is kept\n\n>\nscripted · ready")
    go_on.set()
    talk.say("y")
    assert "again" in talk.screen.wait("scripted · ready")

    talk.type("\x03")
    talk.screen.wait("ctrl-c again leaves")
    talk.type("\x03")
    assert talk.left().endswith("again")
    assert talk.problem is None


def test_the_warning_of_ctrl_c_expires(chat: Start) -> None:
    now = [100.0]
    talk = chat(ScriptedEngine([]), clock=lambda: now[0])
    talk.screen.wait("ready")

    talk.type("\x03")
    talk.screen.wait("ctrl-c again leaves")
    now[0] += 2.1
    talk.screen.wait(lambda text: "ctrl-c again" not in text)
    talk.type("\x03")
    talk.screen.wait("ctrl-c again leaves")
    assert not talk.screen.ended


def test_ctrl_c_while_loading_does_not_kill(chat: Start) -> None:
    loaded = threading.Event()
    talk = chat(lambda: loaded.wait(60) and ScriptedEngine(echo))

    talk.type("\x03")
    talk.screen.wait("ctrl-c again leaves")
    loaded.set()
    talk.say("still here")

    assert "你说：still here" in talk.leave()


@pytest.mark.parametrize("keys", ["\x04", "/exit\r", "\x03\x03"], ids=["ctrl-d", "/exit", "ctrl-c twice"])
def test_exiting_while_the_model_loads(chat: Start, keys: str) -> None:
    never = threading.Event()
    talk = chat(lambda: never.wait(60) and ScriptedEngine(echo))

    talk.type(keys)

    talk.left()
    assert talk.problem is None
    never.set()


def test_exiting_during_a_reply_keeps_the_part_on_the_screen(chat: Start) -> None:
    go_on = threading.Event()
    engine = ScriptedEngine(["床前明月光"], chunks=2, pause=go_on)
    talk = chat(engine)
    talk.type("x\r")
    talk.screen.wait("床前\n")
    threading.Timer(0.1, go_on.set).start()

    assert talk.leave().endswith("> x\n床前")
    assert engine.closed
    assert engine.cancelled == ["turn-1"]


def test_ctrl_d_deletes_in_a_line_that_is_not_empty(chat: Start) -> None:
    engine = ScriptedEngine(echo)
    talk = chat(engine)

    talk.say("abc\x01\x04")

    assert engine.requests[0].messages[-1]["content"] == "bc"


def test_an_engine_error_is_one_line_and_the_prompt_returns(chat: Start) -> None:
    talk = chat(ScriptedEngine({"boom": ["part", EngineError("out of\nmemory")], "hi": "fine"}, chunks=9))

    talk.say("boom")
    talk.say("hi")

    assert "> boom\npart\nerror: out of memory; the partial reply is kept\n\n> hi\nfine" in talk.leave()


def test_an_error_is_red_and_no_color_is_honoured(chat: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("PROMPT_TOOLKIT_COLOR_DEPTH", "DEPTH_4_BIT")
    talk = chat(ScriptedEngine([]))
    talk.type("/rest\r")
    talk.screen.wait("error: unknown command '/rest', did you mean '/reset'?")

    assert "\x1b[0;31merror: unknown" in talk.screen.raw


def test_every_emphasis_that_a_command_may_give_is_drawn(chat: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("PROMPT_TOOLKIT_COLOR_DEPTH", "DEPTH_4_BIT")
    talk = chat(ScriptedEngine([]))
    styles = [style for style in get_args(Style) if style]
    talk.terminal.post(lambda: talk.chat.info([piece for style in styles for piece in ((style, f"({style})"), ("", " "))]))
    talk.screen.wait(f"({styles[-1]})")

    assert [style for style in styles if not re.search(rf"\x1b\[0;[0-9;]+m\({style}\)", talk.screen.raw)] == []


def test_a_model_that_cannot_be_loaded_ends_the_chat_with_its_error(chat: Start) -> None:
    shown = threading.Event()

    def load() -> Any:
        shown.wait()  # an immediate failure may end the chat before its prompt is drawn
        raise ModelError("no model 'x'")

    talk = chat(load)
    shown.set()
    talk.left()

    assert isinstance(talk.problem, ModelError)


def test_any_error_while_a_model_loads_is_one_line_and_keeps_the_previous_model(chat: Start) -> None:
    shown = threading.Event()

    def load(model: str = "") -> Any:
        assert shown.wait(60)
        raise RuntimeError("a library\nbroke")

    ending = chat(load)
    shown.set()
    ending.left()
    staying = chat(ScriptedEngine(echo), services=ChatServices(models=ModelLoader(lambda model: None, load)))
    staying.type("/model other\rhi\r")

    assert str(ending.problem) == "model 'scripted' could not be loaded: RuntimeError: a library broke; --traceback shows where"
    assert staying.screen.wait("你说：hi").count("error: RuntimeError: a library broke; scripted stays\n") == 1


def test_commands_complete(chat: Start) -> None:
    talk = chat(ScriptedEngine([]))
    talk.type("/s")
    talk.screen.wait(lambda text: "/system" in text and "generation settings" in text)
    talk.type("\t\t\r")

    assert "max_new_tokens" in talk.screen.wait("temperature 0.0")


def test_tab_completes_at_once_at_any_typing_speed(chat: Start) -> None:
    talk = chat(ScriptedEngine([]))

    talk.type("/temp\t x")
    talk.screen.wait("> /template x")
    talk.type("\x15/s\t")
    talk.screen.wait(lambda text: "/system" in text and "/stop" in text)
    talk.type("ys\t be brief\r")
    talk.screen.wait("> /system be brief")


def test_history_is_kept_and_searched_across_chats(chat: Start, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "history"
    chat(ScriptedEngine(echo), history=file).say("床前明月光")
    assert file.stat().st_mode & 0o777 == 0o600
    talk = chat(ScriptedEngine(echo), history=file)

    talk.type("\x1b[A")
    talk.screen.wait("\n> 床前明月光\n")
    talk.type("\x03\x12明月")
    talk.screen.wait("I-search backward: 明月")
    talk.type("\r\r")

    talk.screen.wait("你说：床前明月光")


def test_a_history_that_cannot_be_written_is_kept_in_memory(chat: Start, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    blocked = chat(ScriptedEngine(echo), history=tmp_path / "taken" / "history")
    blocked.say("one")
    file = tmp_path / "history"
    vanishing = chat(ScriptedEngine(echo), history=file)
    file.unlink()
    file.mkdir()

    vanishing.say("two")

    vanishing.type("\x1b[A")
    vanishing.screen.wait("\n> two\n")


def test_output_of_a_library_appears_above_the_prompt(chat: Start) -> None:
    def noisy(request: Any) -> str:
        print("a warning")  # noqa: T201
        return "fine"

    talk = chat(ScriptedEngine(noisy))
    talk.say("x")

    assert "> x\na warning\nfine" in talk.leave()
