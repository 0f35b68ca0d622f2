"""Text from outside, in every field and every output, controls no terminal, CI log, browser or parser.

A field is a place where text comes in; it holds ``HOSTILE`` followed by the field's name. An output is text that the program writes. ``SHOWN`` lists the
fields that each output shows, so a test also fails when a field no longer arrives.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from sftchat import EngineError, EngineType, Example, Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import PluginInfo, Registry, load_plugins
from sftchat.testing import ScriptedEngine
from tests.chat.conftest import Pty
from tests.conftest import make_checkpoint
from tests.inference.endpoint_kit import answer, loopback
from tests.test_hardening import commands_in
from tests.test_hardening_escapes import manifest
from tests.test_output import CONTROLS, Screen, workflow_commands

SEQUENCES = "\x1b]52;c;YQ==\x07\x1b]8;;http://x\x1b\\\x1b[2J\x1b[8m\x9b31m\x85\x7f\u202e\u2066\u200b\u2028\r"
HOSTILE = f"{SEQUENCES}\n::error::x\n  ::stop-commands::y\n##[error]z\n\x00\x08</script><img src=x onerror=y>]]>&\"'`|*[a](b)[red]"
NAME = f"{SEQUENCES}##[error]<img src=x>]]>&\"'`|*[red]\n::error::x"
"""Make a text valid as a file name."""


def field(name: str, text: str = HOSTILE) -> str:
    """Return the hostile text of a field, which identifies the field in the output."""
    return f"{text}{mark(name)}"


def mark(name: str) -> str:
    """Return the part to search for, which no escape of any format changes."""
    return f"Q{name}Q"


# --- inputs


def registry() -> Registry:
    """Plugin with hostile text everywhere."""

    def score(example: Example, reply: Reply) -> Score:
        right = reply.text == example.gold
        stats = {"n": 1, "right": float(right)}
        return Score(stats, field("answer"), () if right else (field("fault"),), {field("group"): stats})

    def ask(rest: str, options: Any) -> ScriptedEngine:
        said = {"fails": EngineError(field("error")), "loses": Reply("", "error")}.get(rest, field(rest[:4]))
        return ScriptedEngine(lambda request: said, name=f"h:{rest}")

    task = Task(
        "quiz", field("description"), lambda n, seed: (), score, (rate(field("metric"), "right"),), validate_row=lambda example: [field("problem")]
    )  # fmt: skip
    engine = EngineType("h", field("engine"), ask)
    broken = PluginInfo(field("plugin"), field("distribution"), problem=field("reason"))
    good = PluginInfo("good", field("brought"), tasks=("quiz",), engines=("h",))
    return Registry(load_plugins([]).manager, {"quiz": task}, {"h": engine}, plugins=(good, broken))


GOLD, CANDIDATE, BASE = f"{field('file', NAME)}.jsonl", f"{field('candidate', NAME)}.jsonl", f"{field('folder', NAME)}/base.jsonl"


@dataclass(frozen=True)
class Shown:
    """Output of a command.

    Attributes:
        code: Its exit code.
        out: On standard output.
        err: On standard error.
        files: Text of the files that it wrote, by their names.
    """

    code: int
    out: str
    err: str
    files: dict[str, str]


class World:
    """Folder with hostile files, and a program with a hostile plugin, with terminals or pipes as streams."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("SFTCHAT_CACHE_DIR", str(folder / "cache"))
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        self.session = Session(given_registry=registry())
        rows = [
            {"id": field(f"id{n}"), "messages": [{"role": "user", "content": field("prompt")}], "gold": field("gold"), field("key"): "x"}
            for n in range(12)
        ]
        replies = {CANDIDATE: field("reply"), BASE: field("gold")}
        write(GOLD, rows)
        for name, text in replies.items():
            write(name, [{"id": row["id"], "reply": text} for row in rows])
        write("bad.jsonl", [{"messages": [{"role": field("role"), "content": 5}]}, {field("column"): 1}])
        for name in ("one", "two"):
            Path(name).mkdir()
            Path(name, "config.json").write_text("{}")
            Path(name, "model.safetensors").touch()
            Path(name, "sftchat.json").write_text(manifest(mark(name)))

    def run(self, words: Sequence[str], terminal: bool) -> Shown:
        """Run a command; its files are those in ``out`` and the step summary."""
        streams = [Screen() if terminal else io.StringIO() for _ in range(2)]
        with pytest.MonkeyPatch.context() as patch:
            if not terminal:
                patch.setenv("GITHUB_ACTIONS", "true")
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            code = main(list(words), obj=self.session)
        found = [*Path("out").glob("*"), Path("summary.md")]
        return Shown(code, *(stream.getvalue() for stream in streams), {path.name: read(path) for path in found if path.is_file()})


def write(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as JSONL."""
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path: Path) -> str:
    """Write a file, including half surrogate pairs."""
    return path.read_bytes().decode("utf-8", "surrogatepass")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


# --- outputs

EVAL = ["eval", "--task", "quiz", "--evalset", GOLD]
GATED = [*EVAL, "--replies", CANDIDATE, "--baseline", BASE]
FILES = ["-o", "out", "--overwrite", "--junit", "out/junit.xml", "--markdown", "out/report.md"]

SHOWN: dict[str, tuple[Sequence[str], str]] = {
    "a verdict": (GATED, "file candidate folder metric group fault gold reply"),
    "a verdict as json": ([*GATED, "--json"], "file candidate folder metric group fault id0 gold reply"),
    "an evaluation": ([*EVAL, "h:says"], "file metric group fault"),
    "several models": ([*EVAL, "h:says", "h:more"], "file metric"),
    "a model that fails": ([*EVAL, "h:fails"], "error"),
    "a model that loses items": ([*EVAL, "h:loses"], "id0"),
    "a plan": ([*GATED, "--plan"], "metric"),
    "an item that is not there": ([*GATED, "--must-pass", field("nowhere")], "nowhere"),
    "a file that is not there": ([*EVAL, "--replies", field("missing", NAME)], "missing"),
    "a task that is not there": (["eval", "h:says", "--task", field("task")], "task"),
    "an option that is not there": (["eval", f"--Qoption{HOSTILE}"], "option"),
    "a verb that is not there": ([field("verb")], "verb"),
    "rows that are checked": (["data", "check", GOLD, "--task", "quiz"], "file problem"),
    "rows that are checked as json": (["data", "check", GOLD, "--task", "quiz", "--json"], "file problem"),
    "rows that are broken": (["data", "check", "bad.jsonl"], ""),
    "rows": (["data", "show", GOLD], "file"),
    "rows as json": (["data", "show", GOLD, "--json"], "file prompt gold id0"),
    "rows that are converted": (["data", "convert", GOLD, field("target", NAME), "--to", "messages"], "target"),
    "samples": (["data", "best-of", "quiz", "h:says", "--prompts", GOLD, "-o", field("best", NAME)], "best"),
    "replies": (["ask", "h:says", "--questions", GOLD], "says"),
    "replies as json": (["ask", "h:says", "--questions", GOLD, "--json"], "says id0"),
    "a reply": (["ask", "h:says", "hello"], "says"),
    "no reply": (["ask", "h:fails", "hello"], "error"),
    "no replies": (["ask", "h:loses", "--questions", GOLD], "id0"),
    "models side by side": (["compare", "h:says", "h:more", "--questions", GOLD, "--task", "quiz"], "prompt gold says more metric"),
    "models side by side as json": (["compare", "h:says", "h:more", "--questions", GOLD, "--json"], "prompt gold says more id0"),
    "a model that has no name": (["compare", f"h:saysQmodel{HOSTILE}", "h:more", "--questions", GOLD], "model"),
    "plugins": (["plugins"], "description engine distribution reason brought"),
    "plugins as json": (["plugins", "--json"], "plugin distribution reason brought"),
    "two runs": (["diff", "one", "two"], "one two"),
    "two runs as json": (["diff", "one", "two", "--json"], "one two"),
    "replies that are kept": (["cache"], ""),
    "a model that is not there": (["inspect", field("nomodel", NAME)], "nomodel"),
}  # fmt: skip
"""Every output by name: the arguments of the command, and the fields that it shows."""

DATA = ("replies", "a reply")
"""Outputs whose standard output is data: unchanged in a pipe."""


def assert_harmless(shown: str, *, styles: bool) -> None:
    """Check that the output controls no terminal (styles are allowed) and contains no workflow command for GitHub."""
    text = CONTROLS.sub("", shown) if styles else shown
    assert commands_in(text.replace("\t", "")) == []
    assert styles or workflow_commands(shown) == []
    assert not {code for code in re.findall("\x1b\\[([0-9;]*)m", shown) if "8" in code.split(";")}, "text is concealed"


def assert_arrived(names: str, shown: str) -> None:
    """Check that the fields are in the output, possibly wrapped by a table."""
    text = re.sub(r"\s", "", CONTROLS.sub("", shown))
    assert [name for name in names.split() if mark(name)[:4] not in text] == []


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("name", SHOWN)
def test_no_field_controls_the_output_that_shows_it(name: str, terminal: bool, world: World) -> None:
    words, fields = SHOWN[name]
    shown = world.run(words, terminal)

    assert_arrived(fields, shown.out + shown.err)
    annotations = [line for line in shown.err.split("\n") if line.startswith("::error ")]
    assert_harmless("\n".join(line for line in shown.err.split("\n") if line not in annotations), styles=terminal)
    assert [commands_in(line) for line in annotations] == [[]] * len(annotations)
    if name in DATA and not terminal:
        assert SEQUENCES in shown.out
    else:
        assert_harmless(shown.out, styles=terminal)
    if "--json" in words:
        assert [json.loads(line) for line in ([shown.out] if shown.out.startswith(("{\n", "[\n")) else shown.out.splitlines())]


# --- files


class Page(HTMLParser):
    """Parse the elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.handlers: list[str] = []
        self.data = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self.elements[-1:] == ["script"] and not self.data:
            self.data = data


def test_no_field_injects_markup_into_a_report(world: World) -> None:
    shown = world.run([*GATED, *FILES], terminal=False)

    assert (shown.code, sorted(shown.files)) == (
        1,
        ["junit.xml", "replies.baseline.jsonl", "replies.jsonl", "report.html", "report.json", "report.md", "summary.md"],
    )
    for name, text in shown.files.items():
        if not name.startswith("replies"):
            assert commands_in(text.replace("\t", "")) == []
            assert_arrived(
                "file candidate metric group fault id0 gold reply" if name != "junit.xml" else "file candidate fault id0 gold reply", text
            )

    assert json.loads(shown.files["report.json"])["comparisons"][0]["changes"][0]["candidate"]["reply"] == field("reply")

    page = Page()
    page.feed(shown.files["report.html"])
    assert (page.elements.count("script"), page.elements.count("img"), page.handlers) == (2, 0, [])
    assert json.loads(page.data)["results"][0]["rows"][0][2] == field("reply")

    suites = ElementTree.fromstring(shown.files["junit.xml"])
    assert [len(suite) for suite in suites] == [2, 12]
    assert {element.tag for element in suites.iter()} == {"testsuites", "testsuite", "properties", "property", "testcase", "failure"}

    rows = [line for line in shown.files["report.md"].split("\n") if mark("id0") in line]
    assert [line.count("|") for line in rows] == [6]
    assert "<img" not in shown.files["report.md"]


def test_an_annotation_is_one_command_for_any_quoted_text(world: World) -> None:
    err = world.run(GATED, terminal=False).err

    commands = [line for line in err.split("\n") if line.lstrip().startswith("::")]
    assert len(commands) == 10
    assert all(re.fullmatch(r"::error ([a-z]+=[^:,\r\n]*,?)+::[^\r\n]*", line) for line in commands)
    assert all(mark("id") [:3] in line for line in commands[1:])  # fmt: skip


# --- servers


@contextmanager
def server(*scripts: Any) -> Iterator[str]:
    """The address of a server on loopback."""
    with loopback(scripts) as state:
        yield state.url


SERVERS: dict[str, Callable[[], Any]] = {
    "a message": lambda: answer(400, json.dumps({"error": {"message": field("message")}})),
    "a page": lambda: answer(404, field("message"), "text/plain"),
    "a header": lambda: answer(307, "", location=f"http://x/\x9b31m\x85{mark('message')}"),
    "a reply": lambda: answer(200, json.dumps({"choices": [{"message": {"content": field("message")}}]})),
    "an event": lambda: answer(200, f"data: {json.dumps({'error': {'message': field('message')}})}\n\n", "text/event-stream"),
}


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("script", SERVERS.values(), ids=SERVERS)
def test_no_server_controls_the_output_that_shows_it(script: Callable[[], Any], terminal: bool, world: World) -> None:
    with server(script()) as url:
        shown = world.run(["ask", f"{url}#small", "hello"], terminal)

    assert shown.out + shown.err != ""
    assert_harmless(shown.err, styles=terminal)
    assert_harmless(shown.out if terminal else "", styles=terminal)


# --- chat, and commands with a real model


@pytest.mark.slow
@pytest.mark.parametrize("words", [["inspect", "model"], ["inspect", "model", "--json"]], ids=["inspect", "inspect as json"])
def test_no_manifest_controls_the_output_of_inspect(words: list[str], world: World) -> None:
    make_checkpoint(Path("model"))
    Path("model/sftchat.json").write_text(manifest(mark("manifest")))

    for terminal in (True, False):
        shown = world.run(words, terminal)
        assert_arrived("manifest", shown.out)
        assert_harmless(shown.out + shown.err, styles=terminal)


@pytest.mark.parametrize(
    "words", [["chat", "h:says"], ["chat", "h:says", "--jsonl"], ["chat", "h:fails", "h:says"]], ids=["plain", "jsonl", "two"]
)
def test_no_reply_controls_a_chat_without_a_screen(words: list[str], world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps({"message": field("typed")}) if "--jsonl" in words else "hello"
    for terminal in (True, False):
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{line}\n"))
        shown = world.run(words, terminal)
        assert_arrived("says", shown.out)
        assert_harmless(shown.err, styles=terminal)
        if terminal or "--jsonl" in words:
            assert_harmless(shown.out, styles=terminal)


# --- a real terminal


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["data", "check", GOLD],
        ["data", "show", GOLD],
        ["eval", "--task", "general", "--evalset", GOLD, "--replies", CANDIDATE, "--baseline", BASE],
        ["eval", "--task", "general", "--evalset", GOLD, "--replies", field("missing", NAME)],
        ["diff", "one", "two"],
    ],
    ids=["check", "show", "eval", "missing", "diff"],
)
def test_a_real_terminal_receives_no_control_sequences(words: list[str], world: World) -> None:
    talk = Pty(["-c", "from sftchat.cli import console_script; console_script()", *words], 100, 40, (), {})
    try:
        talk.left()
    finally:
        talk.close()

    assert "�" in talk.screen.raw
    assert_harmless(talk.screen.raw, styles=True)
