"""The gates of the demo."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console

from sftchat import Example, Message, Reply, Score, Task, rate
from sftchat.cli.demo.learning import show_gate
from sftchat.cli.demo.story import Story
from sftchat.cli.session import Session
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.evaluate import evaluate
from sftchat.evaluation.results import ModelResult
from sftchat.testing import ScriptedEngine


def score(example: Example, reply: Reply) -> Score:
    right = reply.text == example.gold
    return Score({"n": 1, "right": float(right)}, reply.text, () if right else ("wrong",))


TASK = Task("agree", "says 好的。", lambda n, seed: [], score, (rate("accuracy", "right"),))
EXAMPLES = [Example((Message(role="user", content=str(n)),), "好的。", id=f"i{n}") for n in range(40)]


def answered(name: str, reply: Callable[[int], str]) -> ModelResult:
    engine = ScriptedEngine(lambda request: reply(int(request.messages[-1]["content"])), name=name)
    return evaluate(engine, TASK, EXAMPLES, evalset=EvalsetIdentity("numbers", size=40))


def shown(baseline: ModelResult, candidate: ModelResult) -> tuple[int, str]:
    file = io.StringIO()
    code = show_gate(Story(Session(), Console(file=file, width=200)), TASK, baseline, candidate, "sftchat eval new --baseline old")
    return code, file.getvalue()


def test_a_regression_is_reported_with_some_of_the_broken_items() -> None:
    code, told = shown(answered("old", lambda n: "好的。"), answered("new", lambda n: "好的。" if n >= 10 else "不"))

    assert code == 1
    assert told.startswith("  $ sftchat eval new --baseline old\n  new on numbers: regressed, worse than old: accuracy -25.0 points")
    assert "verdict: fail\n  exit code 1\n\n    broken: i0  (wrong)\n      gold   好的。\n      before 好的。\n      now    不\n" in told
    assert told.endswith("    and 7 more\n")


def test_an_improvement_passes_and_nothing_is_broken() -> None:
    code, told = shown(answered("old", lambda n: "不"), answered("new", lambda n: "好的。"))

    assert (code, "verdict: pass\n  exit code 0\n" in told, "broken" in told) == (0, True, False)
