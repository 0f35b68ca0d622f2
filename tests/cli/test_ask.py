"""`sftchat ask` as scripts meet it: words in, the reply alone on stdout, exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import Any

import pluggy
import pytest

from sftchat import EngineError, Metric, ModelError, Reply, SamplingParams, Score, Task
from sftchat.cli import main
from sftchat.cli.shared import Session
from sftchat.plugins import Registry
from sftchat.testing import ScriptedEngine

TASK = Task(
    "family",
    "who is whose",
    lambda n, seed: (),
    lambda example, reply: Score({"n": 1}),
    (Metric("m", lambda sums: sums["n"]),),
    template="plain",
    sampling=SamplingParams(max_new_tokens=7, temperature=0.5),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Asked:
    """A run of the program with a scripted engine."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.opened: list[tuple[str, dict[str, Any]]] = []
        self.session = Session(self._open, Registry(pluggy.PluginManager("sftchat"), tasks={"family": TASK}))

    def _open(self, model: str, **options: Any) -> ScriptedEngine:
        self.opened.append((model, options))
        return self.engine

    def __call__(self, *words: str) -> int:
        return main(["ask", *words], obj=self.session)


def echo(request: Any) -> str:
    return f"你说：{request.messages[-1]['content']}"


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr(sys, "stdin", Terminal())
    return Asked(ScriptedEngine(echo))


def test_stdout_is_the_reply_and_nothing_else(ask: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("model", "甲是谁？", "--system", "be brief") == 0

    assert capsys.readouterr() == ("你说：甲是谁？\n", "")
    assert [message["content"] for message in ask.engine.requests[0].messages] == ["be brief", "甲是谁？"]
    assert ask.opened[0][0] == "model"
    assert ask.engine.closed


def test_the_reply_is_streamed_by_whole_characters(ask: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr("sftchat.cli.ask.write", written.append)

    ask("model", "x")
    assert "".join(written) == "你说：x\n"
    assert written[:4] == list("你说：x")
    written.clear()
    ask("model", "x", "--no-stream")
    assert written == ["你说：x\n"]


@pytest.mark.parametrize("words", [(), ("-",)], ids=["left out", "-"])
def test_the_prompt_comes_from_standard_input(
    ask: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("第一行\nsecond \n"))

    assert ask("model", *words) == 0
    assert ask.engine.requests[0].messages[0]["content"] == "第一行\nsecond "
    assert capsys.readouterr().out == "你说：第一行\nsecond \n"


def test_a_given_prompt_leaves_standard_input_alone(ask: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("for the next program"))

    ask("model", "x")

    assert sys.stdin.read() == "for the next program"


@pytest.mark.parametrize(
    ("stdin", "words", "complaint"),
    [
        (Terminal(), ("model",), "no prompt: give one after the model, or pipe it in"),
        (io.StringIO(" \n"), ("model",), "the prompt is empty"),
        (Terminal(), ("model", "  "), "the prompt is empty"),
        (io.TextIOWrapper(io.BytesIO(b"\xe4\xbd"), encoding="utf-8"), ("model",), "standard input is not utf-8"),
        (Terminal(), ("model", "x", "--temperature", "9"), "temperature is 9.0, must be from 0 to 2"),
        (Terminal(), ("model", "x", "--task", "famly"), "unknown task 'famly'; did you mean 'family'?"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    ask: Asked,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stdin: io.TextIOBase,
    words: tuple[str, ...],
    complaint: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)

    assert ask(*words) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"sftchat: error: {complaint}")
    assert err.count("\n") == 1
    assert ask.opened == []


def test_a_task_sets_the_sampling_and_flags_win(ask: Asked) -> None:
    ask("model", "x", "--task", "family")
    ask("model", "x", "--task", "family", "--temperature", "0", "--top-k", "3", "--top-p", "0.9", "--seed", "5", "--dtype", "float32")

    assert ask.engine.requests[0].sampling == TASK.sampling
    assert ask.engine.requests[1].sampling == SamplingParams(max_new_tokens=7, top_k=3, top_p=0.9, seed=5)
    assert ask.opened[1][1]["preferred"] == "plain"
    assert ask.opened[1][1]["dtype"] == "float32"
    assert "seed" not in ask.opened[1][1]


def test_json_is_one_object(ask: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    ask.engine = ScriptedEngine([Reply("“半\n句", "length")])

    assert ask("model", "x", "--json") == 0

    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "半" in out
    assert json.loads(out) == {
        "reply": "“半\n句",
        "finish_reason": "length",
        "prompt_tokens": len("user: x\nassistant: "),
        "completion_tokens": 4,
        "model": "model",
    }


def test_a_pipe_gets_the_bytes_and_a_terminal_gets_symbols(ask: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ((), ("--no-stream",)):
        for stdout, shown in ((io.StringIO(), "a\x1b[2Jb\r\n\n"), (Terminal(), "a␛[2Jb\n\n")):
            ask.engine = ScriptedEngine(["a\x1b[2Jb\r\n"])
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stdout", stdout)
                ask("model", "x", *words)
            assert stdout.getvalue() == shown


@pytest.mark.parametrize(("error", "code"), [(EngineError("out of memory"), 3), (Reply("ha", "error"), 3)])
def test_an_engine_that_fails_is_exit_code_3(ask: Asked, capsys: pytest.CaptureFixture[str], error: Any, code: int) -> None:
    ask.engine = ScriptedEngine([error])

    assert ask("model", "x") == code
    assert capsys.readouterr().err.startswith("sftchat: error: ")
    assert ask.engine.closed


def test_a_model_that_cannot_be_loaded_is_exit_code_3(ask: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(model: str, **options: Any) -> ScriptedEngine:
        raise ModelError(f"no model '{model}'")

    ask.session.open_engine = fail

    assert ask("model", "x") == 3
    assert capsys.readouterr() == ("", "sftchat: error: no model 'model'\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    program = (
        "import sys\nfrom sftchat.cli import main\nfrom sftchat.cli.shared import Session\nfrom sftchat.testing import ScriptedEngine\n"
        "engine = ScriptedEngine(lambda request: '好' * 200_000)\n"
        "try:\n    main(['ask', 'm', 'x', '--max-new-tokens', '300000'], obj=Session(lambda model, **options: engine))\n"
        "finally:\n    assert engine.cancelled, 'the engine was not told'"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as asked:
        assert asked.stdout is not None
        assert asked.stderr is not None
        assert asked.stdout.read(3).decode() == "好"
        asked.stdout.close()

        assert asked.stderr.read().decode() == ""
