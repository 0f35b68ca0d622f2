"""Each kind of broken data has its own message, file and line, and exit code 1; no tracebacks, no incomplete files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pluggy
import pytest

from sftchat import Example, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import Registry

GOOD = '{"prompt": "谁？", "completion": "甲"}'
GIVE = "give one JSON object a line (JSONL) or one JSON array of objects, in UTF-8"
ORDER = "the order is system (at most once, first), then user and assistant by turns"
SHAPES = "it needs one of: messages; messages, gold; prompt, completion; prompt, chosen, rejected; instruction, output; conversations; text"


def turns(*pairs: tuple[str, Any]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in pairs]})


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "a line that is no JSON": ("no", f"malformed JSON at column 1: expecting value; {GIVE}"),
    "a line that is cut off": ('{"prompt": "a"', f"malformed JSON at column 15: expecting ',' delimiter; {GIVE}"),
    "two objects on a line": ('{"text": "a"}{"text": "b"}', f"malformed JSON at column 14: extra data; {GIVE}"),
    "bytes that are not UTF-8": (
        '{"text": "好"}'.encode("gb18030"),
        f"not UTF-8 at byte {len(GOOD.encode()) + 11}; convert it, such as with: iconv -f GB18030 -t UTF-8",
    ),
    "a NUL byte": (b'{"text": "a\0"}', "NUL byte at column 12; the file is damaged or not text"),
    "half of a character": ('{"text": "\\ud83d"}', "lone surrogate \\ud83d, half of a character; remove it or write both halves"),
    "a number that is none": ('{"text": "a", "x": NaN}', "NaN is not JSON; write null or a number"),
    "a number too large": ('{"text": "a", "x": 1e999}', "number 1e999 is too large to read; the largest is about 1.8e308"),
    "a key given twice": ('{"text": "a", "text": "b"}', 'key "text" stands twice in one object; remove one'),
    "a row that is a list": ("[1]", 'the row is a list, must be an object such as {"messages": [...]}'),
    "a row that is text": ('"a"', 'the row is text, must be an object such as {"messages": [...]}'),
    "a tower of lists": (
        '{"text": "a", "x": ' + "[" * 120 + "]" * 120 + "}",
        "lists and objects lie more than 100 deep in one another; flatten the row",
    ),
    "keys of no shape": ('{"question": "a"}', f'unknown shape of row, with the keys "question"; {SHAPES}'),
    "keys of two shapes": (
        '{"prompt": "a", "completion": "b", "messages": []}',
        "the row has the shapes messages and prompt-completion at once; remove the keys of one",
    ),
    "no turns": ('{"messages": []}', "messages has no turns; a row needs at least a user turn"),
    "turns that are no list": ('{"messages": "a"}', 'messages is "a", must be a list of turns'),
    "an empty turn": (turns(("user", " ")), "messages[0].content is empty; fill it or remove the row"),
    "a turn without text": (turns(("user", None)), "messages[0].content is null, must be text"),
    "an unknown role": (
        turns(("bot", "a")),
        "messages[0].role: unknown role 'bot' (available: assistant, developer, function, system, tool, user); say what it is with --role-map bot=ROLE",
    ),
    "a reply without a question": (turns(("assistant", "a")), f"messages[0] is an assistant turn as the first turn; {ORDER}"),
    "a user who speaks twice": (
        turns(("user", "a"), ("user", "b")),
        f"messages[1] is a user turn after a user turn; {ORDER}; --merge-turns joins consecutive turns of one role",
    ),
    "a system turn in the middle": (
        turns(("user", "a"), ("assistant", "b"), ("system", "c")),
        f"messages[2] is a system turn after an assistant turn; {ORDER}",
    ),
    "a tool nobody called": (turns(("user", "a"), ("tool", "b")), f"messages[1] is a tool turn after a user turn; {ORDER}"),
    "a system turn alone": (turns(("system", "a")), "messages has no user turn; a row needs at least one"),
    "no reply": (
        turns(("user", "a")),
        "no assistant turn, so nothing to learn from; add the reply, or check prompts with --policy no-reply=keep",
    ),
    "an empty completion": ('{"prompt": "a", "completion": ""}', "completion is empty; fill it or remove the row"),
    "an empty instruction": (
        '{"instruction": "", "output": "a"}',
        "instruction is empty and so is input; fill one or remove the row",
    ),
    "a history that is no pairs": (
        '{"instruction": "a", "output": "b", "history": [["c"]]}',
        'history[0] is ["c"], must be a pair of what was asked and what was answered',
    ),
    "a call that is no JSON": (
        '{"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "f()"}]}',
        'conversations[1].value is "f()", must be the JSON of a call such as {"name": "weather", "arguments": {"city": "..."}}',
    ),
    "an id that is no text": ('{"text": "a", "id": true}', "id is true, must be text or a whole number"),
    "a reply that was cut off": (
        '{"prompt": "a", "completion": "b", "finish_reason": "length"}',
        'finish_reason is "length": the reply was cut off by a token limit; generate it again with a higher one',
    ),
    "a rendered turn": (
        '{"prompt": "a<|im_end|>", "completion": "b"}',
        'messages[0] holds the marker "<|im_end|>" as text, at character 2; give the turns, not their rendering',
    ),
    "the same row again": (GOOD, "the same row as line 1; remove one"),
    "another reply to the same prompt": (
        '{"prompt": "谁？", "completion": "乙"}',
        "the same prompt as line 1 with another reply; keep one of them",
    ),
    "what the task finds wrong": ('{"prompt": "a", "completion": "!"}', "gold shouts"),
}
"""Each is the second line of a file, after a valid row."""

FILES: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", f"f: the file is empty; {GIVE}"),
    "blank lines": (b"\n \n", f"f: the file holds only blank lines; {GIVE}"),
    "an empty array": (b"[]", f"f: the array is empty; {GIVE}"),
    "an array that does not end": (b'[{"text": "a"},\n', "f:2: the array does not end; is the file cut off?"),
    "text after an array": (
        b'[{"text": "a"}]\nx',
        "f:2: text after the end of the array at column 1; give one array, or one object a line",
    ),
    "an id that stands twice": (
        b'{"text": "a", "id": 1}\n{"text": "b", "id": "1"}\n',
        'f:2: id "1" is taken by line 1; give every row its own',
    ),
    "UTF-16": (
        '{"text": "a"}'.encode("utf-16"),
        "f: the file is UTF-16, not UTF-8; convert it, such as with: iconv -f UTF-16 -t UTF-8",
    ),
    "gzip": (b"\x1f\x8b\x08", f"f: the file is gzip, which is not read; {GIVE}"),
}


def shouting(example: Example) -> list[str]:
    return ["gold shouts"] if example.gold == "!" else []


TASK = Task("quiet", "", lambda n, seed: (), lambda example, reply: Score({"n": 1}), (rate("n", "n"),), validate_row=shouting)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> int:
    return main(["data", *words], obj=Session(given_registry=Registry(pluggy.PluginManager("sftchat"), {"quiet": TASK})))


def test_there_are_at_least_thirty_kinds_of_broken_rows_with_distinct_messages() -> None:
    messages = [message for _, message in (*BROKEN.values(), *FILES.values())]
    assert len(set(messages)) == len(messages) >= 30


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_reported_with_file_and_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    line, message = BROKEN[name]
    Path("f").write_bytes(GOOD.encode() + b"\n" + (line.encode() if isinstance(line, str) else line) + b"\n")
    assert run("check", "f", "--task", "quiet", "-q", "-o", "out") == 1
    assert capsys.readouterr() == (f"f:2: {message}\n", "")
    assert [path.name for path in Path().iterdir()] == ["f"]


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_reported(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = FILES[name]
    Path("f").write_bytes(content)
    assert run("check", "f", "-q", "-o", "out") == 1
    assert capsys.readouterr() == (f"{message}\n", "")
    assert [path.name for path in Path().iterdir()] == ["f"]


READ = [name for name, (_, message) in BROKEN.items() if list(BROKEN).index(name) < list(BROKEN).index("no reply")]


@pytest.mark.parametrize(
    "name", [*READ, "an empty completion", "a history that is no pairs", "a call that is no JSON", "an id that is no text"]
)
def test_unreadable_input_stops_every_other_command_and_leaves_no_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    line, message = BROKEN[name]
    Path("f").write_bytes(GOOD.encode() + b"\n" + (line.encode() if isinstance(line, str) else line) + b"\n")
    for words in (("convert", "f", "out", "--to", "messages"), ("filter", "f", "out")):
        assert run(*words) == 2
        assert capsys.readouterr() == ("", f"sftchat: error: f:2: {message}\n")
    assert [path.name for path in Path().iterdir()] == ["f"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_dropped_under_that_policy_and_the_others_stay(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    line, message = BROKEN[name]
    Path("f").write_bytes(GOOD.encode() + b"\n" + (line.encode() if isinstance(line, str) else line) + b"\n")
    policies = [word for kind in KINDS_OF_BROKEN for word in ("--policy", f"{kind}=drop")]
    assert run("check", "f", "--task", "quiet", "-o", "out", *policies) == 0
    out, err = capsys.readouterr()
    assert out == f"f:2: {message}\n"
    assert err.endswith("first at line 2\nwrote 1 row to out\n")
    assert Path("out").read_text(encoding="utf-8") == GOOD + "\n"


KINDS_OF_BROKEN = ("malformed", "invalid", "no-reply", "cut-off", "special-token", "duplicate", "conflict", "task")
