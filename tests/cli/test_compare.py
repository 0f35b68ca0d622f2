"""`sftchat compare`: the same questions to several models, the first difference marked, scores where there are gold replies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pluggy
import pytest

from sftchat import Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import EngineType, Request
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine
from tests.inference.adapters_kit import make_adapter
from tests.inference.test_sharing import Opener

TASK = Task(
    "quiz",
    "",
    lambda n, seed: (),
    lambda example, reply: Score(
        {"n": 1, "right": int(reply.text == example.gold)}, reply.text, () if reply.text == example.gold else ("wrong",)
    ),
    (rate("accuracy", "right"),),
)
REPLIES: dict[str, Callable[[Request], Any]] = {
    "s:one": lambda request: "父亲是李雷",
    "s:two": lambda request: "父亲是韩梅" if "谁" in request.messages[-1]["content"] else "父亲是李雷",
    "s:silent": lambda request: Reply("", "error"),
    "s:evil": lambda request: "父亲\x1b[2J",
}


class Compared:
    """Program with scripted models; records opened models."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.opened: list[ScriptedEngine] = []

    def __call__(self, *words: object) -> tuple[int, str, str]:
        engines = {"s": EngineType("s", "scripted", lambda rest, options: ScriptedEngine([]))}
        session = Session(self._open, Registry(pluggy.PluginManager("sftchat"), tasks={"quiz": TASK}, engines=engines))
        code = main(["compare", *map(str, words)], obj=session)
        out, err = self.capsys.readouterr()
        return code, out, err

    def _open(self, model: str, **options: Any) -> ScriptedEngine:
        self.opened.append(ScriptedEngine(REPLIES[model], name=model))
        return self.opened[-1]


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Compared:
    monkeypatch.setenv("COLUMNS", "60")
    return Compared(capsys)


def test_replies_are_stacked_on_a_narrow_terminal_and_the_difference_is_named(compare: Compared) -> None:
    code, out, err = compare("s:one", "s:two", "-q", "谁是父亲？")

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "■ 谁是父亲？", "── s:one", "父亲是李雷", "── s:two", "父亲是韩梅", "they differ from character 4 on: s:one 李雷 · s:two 韩梅", "",
    ]  # fmt: skip
    assert [engine.closed for engine in compare.opened] == [True, True]


def test_replies_are_side_by_side_on_a_wide_terminal(compare: Compared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")

    _, out, _ = compare("s:one", "s:two", "-q", "谁？", "-q", "x")

    lines = out.splitlines()
    assert lines[1].split(" │ ")[1] == "s:two"
    assert [cell.strip() for cell in lines[2].split(" │ ")] == ["父亲是李雷", "父亲是韩梅"]
    assert lines[2].index("│") == lines[1].index("│") - 5  # five wide characters
    assert lines[7:] == [lines[2].split(" │ ")[0] + " │ 父亲是李雷", "all say the same", ""]


def test_replies_with_gold_are_scored_and_summed_up(compare: Compared, tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    rows: list[dict[str, Any]] = [
        {"id": "a", "messages": [{"role": "user", "content": "谁？"}], "gold": "父亲是李雷"},
        {"id": "b", "messages": [{"role": "user", "content": "who?"}], "gold": "父亲是李雷"},
        {"id": "c", "messages": [{"role": "user", "content": "no gold"}]},
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    code, out, _ = compare("s:one", "s:two", "--questions", questions, "--task", "quiz")

    assert code == 0
    assert out.count("accuracy 0.00: wrong") == 1
    assert out.splitlines()[-3:] == ["accuracy over 2 of 3 questions:", "  s:one  1.000", "  s:two  0.500"]
    code, out, _ = compare("s:one", "s:two", "--questions", questions, "--task", "quiz", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["id"], line["same"], line.get("gold")) for line in lines] == [
        ("a", False, "父亲是李雷"),
        ("b", True, "父亲是李雷"),
        ("c", True, None),
    ]
    assert lines[0]["replies"][1] == {
        "model": "s:two", "reply": "父亲是韩梅", "finish_reason": "stop", "prompt_tokens": 20, "completion_tokens": 5,
        "metric": "accuracy", "value": 0.0, "errors": ["wrong"], "answer": "父亲是韩梅",
    }  # fmt: skip
    assert "value" not in lines[2]["replies"][0]


def test_an_unanswered_question_is_reported_and_is_exit_code_3(compare: Compared) -> None:
    code, out, _ = compare("s:one", "s:silent", "-q", "x", "--json")

    assert code == 3
    assert json.loads(out)["replies"][1] == {"model": "s:silent", "error": "scripted"}
    assert "(not answered: scripted)" in compare("s:one", "s:silent", "-q", "x")[1]


def test_text_of_a_model_is_shown_and_does_not_control_the_terminal(compare: Compared) -> None:
    assert "父亲␛[2J" in compare("s:one", "s:evil", "-q", "x")[1]
    assert "\x1b" not in compare("s:one", "s:evil", "-q", "\x1b]0;x")[1]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("s:one", "-q", "x"), "only 's:one' is given: compare needs two models or more"),
        (("s:one", "s:one", "-q", "x"), "model 's:one' stands twice"),
        (("s:one", "missing", "-q", "x"), "no folder 'missing'"),
        (("s:one", "http://host/v1#m", "-q", "x", "--template", "chatml"), "--template cannot be compared: the server of"),
        (("s:one", "s:two"), "nothing to ask: give -q TEXT or --questions FILE"),
        (("s:one", "s:two", "-q", "x", "--questions", "f"), "give -q TEXT or --questions FILE, not both"),
        (("s:one", "s:two", "-q", " "), "a question is empty"),
        (("s:one", "s:two", "--questions", "none.jsonl"), "none.jsonl: "),
        (("s:one", "s:two", "-q", "x", "--task", "quizz"), "unknown task 'quizz'; did you mean 'quiz'?"),
    ],
)
def test_models_that_cannot_be_compared_are_refused_before_anything_is_opened(
    compare: Compared, words: tuple[str, ...], complaint: str
) -> None:
    code, out, err = compare(*words)

    assert (code, out, compare.opened) == (2, "", [])
    assert err.startswith(f"sftchat: error: {complaint}")
    assert err.count("\n") == 1


def test_adapters_of_one_base_answer_in_one_batch(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [str(make_adapter(tmp_path / name, tiny_checkpoint, seed)) for seed, name in enumerate("ab")] + [str(tiny_checkpoint)]
    opener = Opener()

    code = main(["compare", *models, "-q", "hi", "-q", "你好", "--json", "--max-new-tokens", "8"], obj=Session(opener))

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (code, opener.opened) == (0, [str(tiny_checkpoint)])
    for model in models:
        main(["ask", model, "hi", "--max-new-tokens", "8"])
        alone = capsys.readouterr().out.removesuffix("\n")
        assert [reply["reply"] for reply in lines[0]["replies"] if reply["model"] == model] == [alone]
