"""Conversations are saved while they go on, restored completely, and continue when they cannot be saved."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftchat.chat.context import Settings
from sftchat.chat.controller import ChatServices
from sftchat.chat.conversation import Answer, Conversation
from sftchat.chat.pane import Opening
from sftchat.chat.sessions import Session, SessionStore, restore
from sftchat.errors import SftchatError
from sftchat.task import ReplyScore
from sftchat.testing import ScriptedEngine
from sftchat.types import Reply, SamplingParams
from tests.chat.logged import Log

View = Callable[..., Log]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "sessions.sqlite"


def opened(path: Path, warnings: list[str] | None = None) -> SessionStore:
    return SessionStore(path, (warnings if warnings is not None else []).append)


def last(path: Path) -> tuple[Conversation, Settings]:
    sessions = opened(path)
    found = sessions.find("")
    assert found is not None
    return restore(sessions, found, 9)


def test_a_conversation_is_restored_with_its_branches_settings_and_scores(view: View, path: Path) -> None:
    services = ChatServices(session=Session(opened(path)))
    log = view(
        ScriptedEngine(["A", "二🙂\udc80", "C"], chunks=9),
        services=services,
        system="s",
        sampling=SamplingParams(temperature=0.5, stop=("。",)),
    )
    log.type("a", "<|im_end|>\x1b[2J\r\n", "/undo", "c", "/set overflow refuse", "/seed 7", "/set history off")
    talk = log.chat
    talk.conversation = talk.conversation.with_answer(2, 0, Answer(Reply("A"), score=ReplyScore("F1", 0.5, ("missing",))))

    assert last(path) == (talk.conversation, talk.settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_saved_before_the_first_message(view: View, path: Path) -> None:
    log = view(ScriptedEngine([]), services=ChatServices(session=Session(opened(path))))
    log.type("/system be brief", "/set temperature 1")

    assert not path.exists()


def test_two_models_are_restored_side_by_side(view: View, path: Path) -> None:
    openings = [Opening(lambda: ScriptedEngine(["A"]), ("one",)), Opening(lambda: ScriptedEngine(["B"]), ("two",))]
    log = view(openings=openings, services=ChatServices(session=Session(opened(path))))
    log.type("x")

    conversation, _ = last(path)
    assert [conversation.seen_by(column).turns[0].reply.text for column in (0, 1)] == ["A", "B"]
    assert [answer.model for answer in conversation.node(2).answers] == ["one", "two"]


KILLED = """
import sys, threading
from pathlib import Path
from sftchat.chat.controller import ChatServices
from sftchat.chat.sessions import Session
from sftchat.chat.sessions import SessionStore
from sftchat.testing import ScriptedEngine
from tests.chat.logged import Log

pause = threading.Event()
engine = ScriptedEngine(["ready", "床前明月光，疑是地上霜"], pause=pause)
log = Log(lambda: engine, services=ChatServices(session=Session(SessionStore(Path(sys.argv[1]), print))))
pause.set()
log.type("hello")
pause.clear()
log.chat.submit("poem")
for _ in range(4):
    seen = len(log.log)
    log.until(lambda: len(log.log) > seen)
    pause.set(); pause.clear()
print("".join(log.log), flush=True)
pause.wait()
"""


def test_a_killed_program_loses_at_most_the_token_that_was_not_shown(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        said = process.stdout.readline().removeprefix("> poem").rstrip("\n")
        os.kill(process.pid, signal.SIGKILL)

    conversation, _ = last(path)
    assert said
    assert [turn.question for turn in conversation.turns] == ["hello", "poem"]
    answer = conversation.turns[1].answer
    assert answer is not None
    assert answer.reply == Reply(said, "cancelled", 0, len(said))
    assert (answer.model, answer.token_ids) == ("scripted", tuple(map(ord, said)))


def test_a_reply_that_was_interrupted_by_a_kill_is_restored_as_a_part(view: View, path: Path) -> None:
    pause = threading.Event()
    log = view(ScriptedEngine(["abcdef"], pause=pause), services=ChatServices(session=Session(opened(path))))
    log.ready()
    log.chat.submit("x")
    log.until(lambda: "a" in log.log)
    log.chat.close(0)
    sessions = opened(path)
    found = sessions.find("")
    conversation, settings = restore(sessions, found, 1)  # type: ignore[arg-type]
    pause.set()

    engine = ScriptedEngine(["bcdef"], chunks=9)
    again = view(engine, services=ChatServices(session=Session(sessions, found, conversation)), sampling=settings.sampling)
    again.chat.conversation = conversation
    assert again.type("/continue") == ["bcdef", "|"]
    assert engine.requests[0].reply_ids == (ord("a"),)
    assert last(path)[0].turns[0].reply == Reply("abcdef", "stop", 19, 6)

    again.type("y")
    assert last(path)[0] == again.chat.conversation


class Loading:
    """Load until stopped, then fail."""

    def __init__(self) -> None:
        self.end = threading.Event()

    def __call__(self) -> None:
        self.end.wait(60)
        raise SftchatError("killed")


def test_lines_typed_while_the_model_loads_are_saved_and_answered_by_the_next_program(view: View, path: Path) -> None:
    loading = Loading()
    log = view(loading, services=ChatServices(session=Session(opened(path))))
    for line in ("first\udc80", "/system be brief", "second"):
        log.chat.submit(line)

    sessions = opened(path)  # a program that starts after the first was killed
    found = sessions.find("")
    assert found is not None
    assert (found.metadata.title, found.metadata.turns) == ("first\udc80", 0)
    conversation, _ = restore(sessions, found, 1)
    again = view(ScriptedEngine(["A", "B"], chunks=9), services=ChatServices(session=Session(sessions, found, conversation)))
    assert again.ready() == [
        "> first\udc80",
        "A",
        "|",
        "> /system be brief",
        "note: system prompt set, from the next message on",
        "> second",
        "B",
        "|",
    ]

    kept = opened(path).find("")
    assert kept is not None
    assert (kept.id, kept.metadata.pending, kept.metadata.system) == (found.id, (), "be brief")
    assert [turn.question for turn in last(path)[0].turns] == ["first\udc80", "second"]
    loading.end.set()


def test_a_message_without_a_reply_is_answered_when_the_conversation_is_resumed_before_later_lines(view: View, path: Path) -> None:
    pause = threading.Event()
    log = view(ScriptedEngine(["never said"], pause=pause), services=ChatServices(session=Session(opened(path))))
    log.ready()
    log.chat.submit("one")
    log.chat.submit("two")

    sessions = opened(path)
    found = sessions.find("")
    assert found is not None
    conversation, _ = restore(sessions, found, 1)
    assert (conversation.waiting, found.metadata.pending) == (True, ("two",))
    again = view(ScriptedEngine(["A", "B"], chunks=9), services=ChatServices(session=Session(sessions, found, conversation)))
    again.chat.conversation = conversation
    assert again.ready() == ["> one", "A", "|", "> two", "B", "|"]
    assert [(turn.question, turn.answer and turn.answer.reply.text) for turn in last(path)[0].turns] == [("one", "A"), ("two", "B")]

    again.type("/reset", "/load 1")
    assert again.log == []
    pause.set()


def test_a_session_loaded_during_a_conversation_answers_its_queued_lines(view: View, path: Path) -> None:
    loading = Loading()
    view(loading, services=ChatServices(session=Session(opened(path)))).chat.submit("first")
    log = view(ScriptedEngine(["A"], chunks=9), services=ChatServices(session=Session(opened(path))))

    assert log.type("/load 1")[-2:] == ["A", "|"]
    assert [turn.question for turn in last(path)[0].turns] == ["first"]
    loading.end.set()


def test_a_second_program_with_the_same_session_uses_a_copy(view: View, path: Path) -> None:
    view(ScriptedEngine(["A"]), services=ChatServices(session=Session(opened(path)))).type("a")
    logs = []
    for _ in range(2):
        sessions = opened(path)
        found = sessions.find("1")
        assert found is not None
        kept = sessions.load_conversation(found)
        logs.append(view(ScriptedEngine(["B"]), services=ChatServices(session=Session(sessions, found, kept))))
        logs[-1].chat.conversation = kept
    logs[0].type("b")
    logs[1].type("c")

    both = [opened(path).load_conversation(one) for one in sorted(opened(path).list_sessions(), key=lambda one: one.id)]
    assert [[turn.question for turn in one.turns] for one in both] == [["a", "b"], ["a", "c"]]


@pytest.mark.parametrize("how", ["a folder", "not a database", "of the future"])
def test_a_failure_to_save_is_reported_once_and_the_chat_continues(view: View, path: Path, how: str) -> None:
    path.parent.mkdir()
    if how == "a folder":
        path.mkdir()
    elif how == "not a database":
        path.write_text("no database at all, and long enough to be none" * 30)
    else:
        sqlite3.connect(path).executescript("PRAGMA user_version = 99").close()
    warnings: list[str] = []
    log = view(ScriptedEngine(["A", "B"], chunks=9), services=ChatServices(session=Session(opened(path, warnings))))

    assert log.type("a", "b") == ["A", "|", "B", "|"]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"the conversation is not kept from here on: cannot use '{path}': ")
    assert log.type("/sessions")[0] == "error: /sessions: conversations are not kept here"


def test_a_full_disk_during_a_chat_is_reported_once(view: View, path: Path) -> None:
    warnings: list[str] = []
    sessions = opened(path, warnings)
    log = view(
        ScriptedEngine(["A", "b" * 20_000, "C"], chunks=30_000, context_length=10**6),
        services=ChatServices(session=Session(sessions)),
        sampling=SamplingParams(30_000),
    )
    log.type("a")
    sessions._connection.execute("PRAGMA max_page_count = 1")  # type: ignore[union-attr]

    assert log.type("b", "c")[-2:] == ["C", "|"]
    assert warnings == [f"the conversation is not kept from here on: cannot use '{path}': database or disk is full"]


def test_a_named_conversation_is_loaded_by_its_name_with_its_last_settings(view: View, path: Path) -> None:
    log = view(ScriptedEngine(["A", "B"], chunks=9), services=ChatServices(session=Session(opened(path))))
    log.type("a", "/save first", "/set temperature 0.5", "/set temperature 0.25")

    again = view(ScriptedEngine(["C"], chunks=9), services=ChatServices(session=Session(opened(path))))
    assert again.type("c", "/save first") == ["C", "|", "error: session name 'first' is taken; /load first goes on with that one"]
    assert again.type("/load first") == ["note: session first: 1 turn, said with scripted; /history shows it"]
    assert again.chat.sampling.temperature == 0.25
    assert [turn.question for turn in again.chat.conversation.turns] == ["a"]
    (listed,) = again.type("/sessions")
    assert [line.split("  20")[0] for line in listed.removeprefix("note: ").splitlines()] == ["* 1 first", "  2"]
    assert again.type("/save", "/save two words", "/save 7") == [
        "error: the name is missing: a name must be one word that begins with a letter and has no '/'; conversations are kept anyway, /export writes a file",
        *(
            f"error: session name '{name}' must be one word that begins with a letter and has no '/'; conversations are kept anyway, /export writes a file"
            for name in ("two words", "7")
        ),
    ]


@pytest.mark.parametrize(("name", "format"), [("t.jsonl", ""), ("t.jsonl", " sharegpt"), ("t.json", " messages")])
def test_an_exported_conversation_is_loaded_unchanged(view: View, tmp_path: Path, name: str, format: str) -> None:
    nasty = "<think>\x1b[2J</think>\r\n  你🙂 <|im_end|>"
    file = tmp_path / name
    log = view(ScriptedEngine([nasty], chunks=999), system="s")
    log.type("a <b>\n")

    assert log.type(f"/export {file}{format}") == [f"note: 1 turn written to {file} as {format.strip() or 'messages'}"]
    before = log.chat.conversation.messages
    assert log.type(f"/export {file}") == [f"error: '{file}' exists; give a name that is free"]
    log.type("/reset", "/system off")
    assert log.type(f"/load {file}") == [f"note: {file}: 1 turn; /history shows it"]
    assert log.chat.conversation.messages == before
    assert before[-1]["content"] == nasty


def test_markdown_exports_are_readable(view: View, tmp_path: Path) -> None:
    file = tmp_path / "talk.md"
    log = view(ScriptedEngine(["# 你好\n\n- a"], chunks=99))
    log.type("a", f"/export {file}")

    assert file.read_text(encoding="utf-8") == "**user**\n\na\n\n**assistant**\n\n# 你好\n\n- a\n"


def test_a_row_of_a_data_file_is_loaded_and_its_open_question_is_put_into_the_input_line(view: View, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows: list[Any] = [
        {"messages": [{"role": "user", "content": "q"}]},
        {"instruction": "i", "input": "", "output": "o"},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    log = view(ScriptedEngine([]))

    assert log.type(f"/load {file}") == [
        "proposed: q",
        f"note: {file}: 0 turns; its last message waits for you to send it: q; /history shows it",
    ]
    log.type(f"/load {file} 2")
    assert [message["content"] for message in log.chat.conversation.messages] == ["i", "o"]
    wrong = log.type(
        f"/load {file} 3", f"/load {file} 9", "/load nosuch", "/load", "/export", "/export /nosuch/x.jsonl", f"/export {tmp_path}/y xml"
    )
    assert [said.split(":")[0] for said in wrong] == ["error"] * 7
    assert [message["content"] for message in log.chat.conversation.messages] == ["i", "o"]


def test_a_damaged_session_is_reported_and_moved_aside_and_the_others_remain(view: View, path: Path) -> None:
    for said in ("a", "b", "c"):
        view(ScriptedEngine(["A"]), services=ChatServices(session=Session(opened(path)))).type(said)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sessions SET facts = '[[' WHERE id = 1")
        connection.execute("UPDATE nodes SET said = '{}', parent = 7 WHERE session = 2 AND id = 2")
    connection.close()
    warnings: list[str] = []
    sessions = opened(path, warnings)

    assert [found.id for _ in range(2) for found in sessions.list_sessions()] == [3, 2, 3, 2]
    assert warnings == [f"session 1 in '{path}' is damaged and cannot go on: Expecting value: line 1 column 3 (char 2)"]
    with pytest.raises(SftchatError, match="^session 2 in '.*' is damaged and cannot go on: node 2 follows node 7$"):
        sessions.load_conversation(sessions.list_sessions()[1])
    assert sessions.load_conversation(sessions.list_sessions()[0]).turns[0].question == "c"
    sessions.close()


@pytest.mark.parametrize("name", ["talk.md", "talk.jsonl"])
def test_an_exported_conversation_is_complete_whatever_the_model_saw(view: View, tmp_path: Path, name: str) -> None:
    log = view(ScriptedEngine(["A", "B"], chunks=9))

    log.type("first", "/set history off", "second", f"/export {tmp_path / name}")

    written = (tmp_path / name).read_text(encoding="utf-8")
    assert [word for word in ("first", "A", "second", "B") if word not in written] == []
