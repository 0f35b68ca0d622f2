"""``sftchat eval --rescore``: what a changed scorer changes in earlier results, without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pluggy
import pytest

from sftchat import Example, Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import Engine, EngineType
from sftchat.evaluation.ledger_file import count_results, ledger_path
from sftchat.plugins import spec as hookspecs
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine

ROWS = [{"id": f"i{n}", "messages": [{"role": "user", "content": f"question {n}"}], "gold": f"answer {n}"} for n in range(6)]
IDENTITIES = {"s:good": "aa" * 32, "s:half": "bb" * 32}


def strict(example: Example, reply: Reply) -> Score:
    right = reply.text == example.gold
    return Score({"n": 1, "right": int(right)}, reply.text, () if right else ("wrong",))


def even(example: Example, reply: Reply) -> Score:
    """Right when the number in the reply is even, whatever the gold reply."""
    right = reply.text[-1] in "02468"
    return Score({"n": 1, "right": int(right)}, reply.text, () if right else ("odd",))


@dataclass
class Desk:
    """Program whose scorer can be replaced; records the models that were opened."""

    capsys: pytest.CaptureFixture[str]
    task: Task
    identities: dict[str, str]
    opened: list[str] = field(default_factory=list)

    def open(self, model: str, **options: Any) -> Engine:
        self.opened.append(model)
        answers: dict[str, Callable[[Any], str]] = {
            "s:good": lambda request: request.messages[-1]["content"].replace("question", "answer"),
            "s:half": lambda request: f"answer {int(request.messages[-1]['content'].split()[1]) % 3}",
        }
        return ScriptedEngine(answers[model], name=model)

    def run(self, *words: object, scorer: Callable[[Example, Reply], Score] | None = None) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of ``sftchat eval``, with another scorer from now on if one is given."""
        if scorer is not None:
            self.task = replace(self.task, score=scorer)
        manager = pluggy.PluginManager("sftchat")
        manager.add_hookspecs(hookspecs)
        registry = Registry(manager, {"quiz": self.task}, {"s": EngineType("s", "scripted", lambda rest, options: ScriptedEngine([]))})
        session = Session(self.open, registry, lambda model, **options: self.identities.get(model, ""))
        code = main(["eval", *map(str, words)], obj=session)
        out, err = self.capsys.readouterr()
        return code, out, err


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    task = Task("quiz", "a quiz", lambda n, seed: (), strict, (rate("accuracy", "right"),), evalsets={"gold": gold})
    return Desk(capsys, task, dict(IDENTITIES))


def flips(text: str) -> dict[str, tuple[list[str], list[str], int, int]]:
    """Items won and lost, number of missing replies, and number of items that were not compared, by model."""
    return {
        one["model"]: ([pair["id"] for pair in one["won"]], [pair["id"] for pair in one["lost"]], one["missing"], one["unlike"])
        for one in json.loads(text)
    }


def test_a_changed_scorer_is_applied_to_all_recorded_replies_without_a_model(desk: Desk) -> None:
    desk.run("s:good", "s:half")
    desk.opened.clear()

    code, out, err = desk.run("--rescore", "--json", scorer=even)

    assert (code, err, desk.opened) == (0, "", [])
    # s:half answers 0, 1, 2, 0, 1, 2
    assert flips(out) == {"s:good": ([], ["i1", "i3", "i5"], 0, 0), "s:half": (["i3", "i5"], ["i1"], 0, 0)}
    first, second = json.loads(out)
    assert [metric["value"] for metric in (*first["metrics"], *first["recorded"]["metrics"])] == [0.5, 1.0]
    assert [(pair["id"], pair["recorded"]["errors"], pair["now"]["errors"]) for pair in second["recounted"]] == [("i4", ["wrong"], ["odd"])]
    assert count_results(ledger_path()) == 2


def test_metrics_and_flips_are_tables(desk: Desk) -> None:
    desk.run("s:good", "s:half")
    assert desk.run("s:good", "--rescore") == (0, "s:good: quiz on gold.jsonl, 6 items, nothing changes\nno verdict flips\n", "")

    lines = [" ".join(line.split()) for line in desk.run("s:half", "--rescore", scorer=even)[1].split("\n")]

    assert lines[0] == "s:half: quiz on gold.jsonl, 6 items"
    assert "accuracy 0.500 0.667 +0.167 [0.300, 0.903]" in lines
    assert [line for line in lines if line.startswith("i")] == [
        "item recorded now",
        "i1 right wrong: odd",
        "i3 wrong: wrong right",
        "i5 wrong: wrong right",
    ]
    assert lines[-4:] == ["2 now right, 1 now wrong, 1 with other counts", "", "3 verdicts flip in 1 of 1 result", ""]


def test_replies_of_asked_models_that_are_missing_exit_3_with_count_and_command(desk: Desk) -> None:
    desk.run("s:good", "--limit", 4)
    desk.opened.clear()

    code, out, err = desk.run("s:good", "--rescore")

    assert (code, desk.opened) == (3, [])
    assert out == "s:good: quiz on gold.jsonl, 6 items\n2 of 6 replies neither cached nor stored\n\n"
    assert err == (
        "sftchat: 2 of 6 replies of 's:good' on gold.jsonl are neither cached nor stored; the same command without --rescore generates them\n"
    )


def test_cached_replies_without_a_recorded_result_are_scored(desk: Desk) -> None:
    desk.run("s:good", "--no-ledger")

    code, out, _ = desk.run("s:good", "--rescore")

    assert (code, "no recorded result of these replies to compare with" in out) == (0, True)
    assert "accuracy 1.000 [0.610, 1.000]" in " ".join(out.split())


def test_replies_that_cannot_be_cached_are_read_from_the_output_folder(desk: Desk) -> None:
    desk.identities.clear()
    desk.run("s:half", "-o", "out")
    desk.opened.clear()

    assert flips(desk.run("--rescore", "--json", scorer=even)[1]) == {"s:half": (["i3", "i5"], ["i1"], 0, 0)}
    assert flips(desk.run("s:half", "--rescore", "--json")[1]) == {"s:half": (["i3", "i5"], ["i1"], 0, 0)}
    Path("out/replies.jsonl").write_text(json.dumps({"id": "i0", "reply": "another"}) + "\n", encoding="utf-8")
    assert flips(desk.run("--rescore", "--json")[1]) == {"s:half": ([], [], 6, 0)}
    assert (desk.run("--rescore")[0], desk.run("s:half", "--rescore")[0], desk.opened) == (0, 3, [])


def test_stored_replies_are_compared_with_their_recorded_result(desk: Desk) -> None:
    rows = [{"id": f"i{number}", "reply": f"answer {number % 3}"} for number in range(6)]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    desk.run("--replies", "mine.jsonl")

    expected = {"mine.jsonl": (["i3", "i5"], ["i1"], 0, 0)}
    assert flips(desk.run("--replies", "mine.jsonl", "--rescore", "--json", scorer=even)[1]) == expected
    assert flips(desk.run("--rescore", "--json")[1]) == expected
    rows[0]["reply"] = "answer 9"
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert flips(desk.run("--replies", "mine.jsonl", "--rescore", "--json")[1]) == {"mine.jsonl": (["i3", "i5"], ["i1"], 0, 1)}


def test_the_latest_result_of_the_same_replies_counts(desk: Desk) -> None:
    desk.run("s:half")
    desk.run("s:half", scorer=even)

    assert flips(desk.run("--rescore", "--json")[1]) == {"s:half": ([], [], 0, 0)}
    assert flips(desk.run("--rescore", "--json", scorer=strict)[1]) == {"s:half": (["i1"], ["i3", "i5"], 0, 0)}


def test_other_weights_under_the_same_name_are_not_the_recorded_model(desk: Desk) -> None:
    desk.run("s:half")
    desk.identities["s:half"] = "cc" * 32

    assert desk.run("s:half", "--rescore")[0] == 3
    assert desk.run("--rescore") == (0, "s:half: quiz on gold.jsonl, 6 items, nothing changes\nno verdict flips\n", "")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("s:good", "-o", "out"), "--output"), (("--baseline", "s:half"), "--baseline"), (("--limit", 3), "--limit"), (("--fresh",), "--fresh"),
        (("--min", "accuracy=0.1"), "--min"), (("--update-baseline", "b.jsonl"), "--update-baseline"), (("--ids", "i1"), "--ids"),
        (("--html", "x.html"), "--html"), (("--plan",), "--plan"),
    ],
)  # fmt: skip
def test_options_of_a_comparison_are_refused(desk: Desk, words: tuple[object, ...], option: str) -> None:
    message = f"--rescore compares earlier replies with their recorded results, and writes nothing; leave out {option}"

    assert desk.run("--rescore", *words) == (2, "", f"sftchat: error: {message}\n")


def test_nothing_recorded_is_refused_in_one_line(desk: Desk) -> None:
    code, out, err = desk.run("--rescore")

    assert (code, out) == (2, "")
    assert err == (
        "sftchat: error: no recorded results of quiz on gold.jsonl with these settings; 'sftchat eval MODEL' records them, "
        "'sftchat history' lists them\n"
    )
