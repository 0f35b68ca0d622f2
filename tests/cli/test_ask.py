"""`sftchat ask` in scripts: arguments in, only the reply on stdout, exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pluggy
import pytest

from sftchat import EngineError, Metric, ModelError, Reply, SamplingParams, Score, Task
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import Registry
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


def test_stdout_is_only_the_reply(ask: Asked, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_given_prompt_leaves_standard_input_unread(ask: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_closed_pipe_is_no_error() -> None:
    program = (
        "import sys\nfrom sftchat.cli import main\nfrom sftchat.cli.session import Session\nfrom sftchat.testing import ScriptedEngine\n"
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


def test_a_file_of_questions_is_answered_in_its_order(ask: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "q.txt"
    text.write_text("甲？\n\n  乙？\n", encoding="utf-8")
    rows = tmp_path / "q.jsonl"
    rows.write_text(
        '{"id": "x", "messages": [{"role": "user", "content": "丙？"}]}\n{"instruction": "丁？", "output": "y"}\n', encoding="utf-8"
    )

    assert ask("model", "--questions", str(text), "--system", "s") == 0
    assert capsys.readouterr().out == "你说：甲？\n你说：  乙？\n"
    assert ask.engine.requests[0].messages[0] == {"role": "system", "content": "s"}
    ask("model", "--questions", str(rows), "--json")
    assert [(line["id"], line["reply"]) for line in map(json.loads, capsys.readouterr().out.splitlines())] == [
        ("x", "你说：丙？"), ("row-000002", "你说：丁？"),
    ]  # fmt: skip


def test_answers_in_another_order_are_sorted_into_the_files_order(ask: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Backwards(ScriptedEngine):
        def generate(self, requests: Any) -> Any:
            return super().generate(reversed(list(requests)))

    ask.engine = Backwards(echo)
    questions = tmp_path / "q.txt"
    questions.write_text("1\n2\n3\n", encoding="utf-8")

    ask("model", "--questions", str(questions))

    assert capsys.readouterr().out == "你说：1\n你说：2\n你说：3\n"


def test_samples_of_one_prompt_have_different_seeds(ask: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("model", "x", "-k", "3", "--temperature", "0.5", "--seed", "7", "--json") == 0

    assert [request.sampling.seed for request in ask.engine.requests] == [7, 8, 9]
    assert [json.loads(line)["sample"] for line in capsys.readouterr().out.splitlines()] == [0, 1, 2]


def test_a_question_that_fails_leaves_the_others_and_is_exit_code_3(ask: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask.engine = ScriptedEngine({"1": "a", "2": Reply("", "error"), "3": "c"})
    questions = tmp_path / "q.txt"
    questions.write_text("1\n2\n3\n", encoding="utf-8")

    assert ask("model", "--questions", str(questions)) == 3

    assert capsys.readouterr() == ("a\nc\n", "sftchat: error: question '2' was not answered: scripted\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("x", "-k", "2"), "-k 2 would print one reply 2 times: samples need a --temperature above 0"),
        (("x", "--questions", "q.txt"), "give a PROMPT or --questions FILE, not both"),
        (("--questions", "missing.txt"), "missing.txt: cannot be read: No such file or directory"),
        (("--questions", "missing.jsonl"), "missing.jsonl: "),
    ],
)
def test_an_impossible_batch_is_refused_before_the_model_is_opened(
    ask: Asked, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], complaint: str
) -> None:
    assert ask("model", *words) == 2

    assert capsys.readouterr().err.startswith(f"sftchat: error: {complaint}")
    assert ask.opened == []


def test_one_prompt_is_answered_interactively_and_a_file_of_questions_is_not(ask: Asked, tmp_path: Path) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("hi\n", encoding="utf-8")

    assert [ask("model", "hi"), ask("model", "--questions", str(questions))] == [0, 0]
    assert [options["interactive"] for _, options in ask.opened] == [True, False]
