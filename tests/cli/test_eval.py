"""``sftchat eval`` from arguments to exit code, with scripted models and no installed plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sftchat.testing import ScriptedEngine
from tests.cli.conftest import ROWS, Desk, Listener


def test_a_model_is_scored_on_the_evalset_of_the_only_task(desk: Desk) -> None:
    code, out, err = desk.run("s:half")

    assert (code, out.split("\n")[0]) == (0, "quiz on gold.jsonl, 8 items")
    assert "accuracy   0.500   [0.215, 0.785]" in out
    assert err.split("\n")[-2:] == ["s:half on gold.jsonl: 8 of 8", ""]
    assert desk.options == [
        {
            "preferred": "chatml",
            "base": None,
            "dtype": "auto",
            "device": "auto",
            "quantize": None,
            "template": None,
            "template_name": None,
            "template_arguments": {},
            "trust_remote_code": False,
            "allow_pickle": False,
            "concurrency": 16,
            "timeout": 120.0,
            "request_timeout": 600.0,
            "extra_body": {},
        }
    ]
    assert [engine.closed for engine in desk.closed if isinstance(engine, ScriptedEngine)] == [True]


def test_quiet_writes_nothing_to_standard_error(desk: Desk) -> None:
    assert desk.run("s:half", "--quiet")[2] == ""


def test_json_is_the_report_and_the_same_bytes_every_time(desk: Desk) -> None:
    first, second = desk.run("s:half", "--json", "--baseline", "s:good"), desk.run("s:half", "--json", "--baseline", "s:good")

    assert first == second
    assert json.loads(first[1])["results"][0]["metrics"][0]["value"] == 0.5


def test_a_missed_floor_exits_1_with_the_verdict_as_the_last_line(desk: Desk) -> None:
    code, _, err = desk.run("s:half", "--min", "accuracy=0.6")

    assert code == 1
    assert err.split("\n")[-3:] == ["s:half on gold.jsonl: accuracy 0.500 is under the floor 0.6", "verdict: fail", ""]
    assert desk.run("s:half", "--min", "accuracy=0.5")[0] == 0


def test_a_regression_exits_1_and_an_improvement_0(desk: Desk) -> None:
    worse, better = desk.run("s:bad", "--baseline", "s:good"), desk.run("s:good", "--baseline", "s:bad")

    assert (worse[0], better[0]) == (1, 0)
    assert (
        "s:bad on gold.jsonl: regressed, worse than s:good: accuracy -100.0 points [-100.0, -47.8], p = 0.00781\nverdict: fail\n"
        in worse[2]
    )
    assert "newly broken" in worse[1]
    assert desk.opened == ["s:good", "s:bad", "s:bad", "s:good"]


def test_a_model_is_no_worse_than_itself(desk: Desk) -> None:
    code, _, err = desk.run("s:half", "--baseline", "s:half")

    assert code == 0
    assert err.endswith("fine against s:half: accuracy +0.0 points [-36.9, +36.9], p = 1, no item changed its counts\nverdict: pass\n")


def test_results_are_written_and_plugins_are_called(desk: Desk, listener: Listener) -> None:
    code, out, _ = desk.run("s:half", "--baseline", "s:good", "-o", "out", "--json")

    assert code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["replies.baseline.jsonl", "replies.jsonl", "report.html", "report.json"]
    assert Path("out/report.json").read_text(encoding="utf-8") == out
    assert [json.loads(line)["id"] for line in Path("out/replies.jsonl").read_text(encoding="utf-8").splitlines()] == [
        row["id"] for row in ROWS
    ]
    assert [(report.to_json(), folder) for report, folder in listener.heard] == [(out, Path("out"))]


def test_several_models_have_a_file_each(desk: Desk) -> None:
    desk.run("s:half", "s:good", "-o", "out")

    assert sorted(path.name for path in Path("out").iterdir()) == ["replies.1.jsonl", "replies.2.jsonl", "report.html", "report.json"]
    assert [result["replies"] for result in json.loads(Path("out/report.json").read_text(encoding="utf-8"))["results"]] == [
        "replies.1.jsonl",
        "replies.2.jsonl",
    ]


def test_stored_replies_are_scored_and_compared_without_any_model(desk: Desk) -> None:
    desk.run("s:bad", "--baseline", "s:good", "-o", "out")
    before = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    desk.opened.clear()

    code, out, _ = desk.run("--replies", "out/replies.jsonl", "--baseline", "out/replies.baseline.jsonl", "--json")

    assert (code, desk.opened) == (1, [])
    assert json.loads(out)["comparisons"][0]["metrics"] == before["comparisons"][0]["metrics"]


def test_stored_replies_need_no_torch(desk: Desk) -> None:
    code = (
        "import sys; import sftchat.cli.eval; early = {'numpy', 'rich', 'torch'} & set(sys.modules); "
        "import sftchat.evaluation.pipeline, sftchat.evaluation.plan, sftchat.evaluation.gate, sftchat.evaluation.report.terminal; "
        "print(sorted(early), sorted({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )

    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)

    assert done.stdout == "[] []\n"


def test_an_unanswered_item_exits_3_for_any_floors(desk: Desk) -> None:
    code, out, err = desk.run("s:flaky", "--min", "accuracy=1", "-o", "out")

    assert code == 3
    assert "7 of 7 items without any error class, 1 not answered" in out
    assert err.endswith("1 item was not answered, the first 'i2' by s:flaky: scripted\nverdict: could not judge\n")
    assert desk.run("--replies", "out/replies.jsonl")[0] == 3


def test_an_interruption_exits_130_and_keeps_the_replies(desk: Desk) -> None:
    code, out, err = desk.run("s:interrupted", "-o", "out")

    kept = Path("out/replies.partial.jsonl")
    assert (code, out) == (130, "")
    assert f"2 replies kept in {kept}; the same command goes on from there\n" in err
    assert [json.loads(line)["id"] for line in kept.read_text(encoding="utf-8").splitlines()] == ["i0", "i1"]
    assert [path.name for path in Path("out").iterdir()] == [kept.name]


def test_a_failing_server_exits_3_in_one_line_and_keeps_the_replies(desk: Desk) -> None:
    code, _, err = desk.run("s:dying", "-o", "out", "--quiet")

    assert code == 3
    kept = Path("out/replies.partial.jsonl")
    assert err == f"3 replies kept in {kept}; the same command goes on from there\nsftchat: error: server gone\n"


def test_a_limit_scores_the_first_rows_and_is_reported(desk: Desk) -> None:
    desk.run("s:good", "-o", "full")

    assert desk.run("s:half", "--limit", 4)[1].startswith("quiz on gold.jsonl, 4 of 8 items\n")
    assert desk.run("--replies", "full/replies.jsonl", "--limit", 4)[0] == 0


def test_several_evalsets_are_scored_separately_and_stored_together(desk: Desk) -> None:
    other = [{**row, "id": f"o{n}", "gold": "x"} for n, row in enumerate(ROWS)]
    Path("other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other), encoding="utf-8")

    code, out, _ = desk.run("s:good", "--evalset", "gold.jsonl", "--evalset", "other.jsonl", "-o", "out", "--json")

    results = json.loads(out)["results"]
    assert code == 0
    assert [(result["evalset"]["name"], result["metrics"][0]["value"]) for result in results] == [("gold.jsonl", 1.0), ("other.jsonl", 0.0)]
    assert len(Path("out/replies.jsonl").read_text(encoding="utf-8").splitlines()) == 16
    assert desk.run("--replies", "out/replies.jsonl", "--evalset", "gold.jsonl", "--evalset", "other.jsonl", "--json")[0] == 0


def test_an_evalset_of_the_task_is_given_by_its_name(desk: Desk) -> None:
    code, out, _ = desk.run("s:good", "--evalset", "gold")
    unknown = desk.run("s:good", "--evalset", "quiz=silver")

    assert (code, out.startswith("quiz on gold.jsonl, 8 items\n")) == (0, True)
    assert (unknown[0], "task 'quiz' has no evalset of that name (it has: gold)" in unknown[2]) == (2, True)


def test_the_task_is_the_one_the_model_was_trained_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    quiz = desk.registry.tasks["quiz"]
    desk.registry = replace(desk.registry, tasks={"quiz": quiz, "other": replace(quiz, name="other")})
    fields = {"base": "b", "base_identity": "", "method": "full", "config": {}, "data": [], "rows": 1, "tokens_hash": "", "template": ""}
    for name, task in (("run", "other"), ("run/checkpoint-5", None), ("second", "quiz")):
        folder = desk.folder / name
        folder.mkdir()
        (folder / "config.json").write_text("{}", encoding="utf-8")
        (folder / "model.safetensors").write_bytes(b"")
        if task:
            (folder / "sftchat.json").write_text(json.dumps({"task": task, "template_hash": "", **fields}), encoding="utf-8")
    desk.engines |= dict.fromkeys(("run", "run/checkpoint-5", "second"), desk.engines["s:good"])

    assert desk.run("run")[1].startswith("other on ")
    assert desk.run("run/checkpoint-5")[1].startswith("other on ")
    assert desk.run("run", "--task", "quiz")[1].startswith("quiz on ")
    assert desk.run("run", "second") == (
        2,
        "",
        "sftchat: error: the models were trained on different tasks (run on other, second on quiz); choose one with --task\n",
    )
    desk.registry = replace(desk.registry, tasks={"quiz": quiz})
    assert desk.run("run")[2] == (
        "sftchat: error: the models were trained on the task 'other', which is not installed; if it is in a file, give --task FILE.toml\n"
    )
    desk.registry = replace(desk.registry, tasks={"quiz": quiz, "other": replace(quiz, name="other")})
    assert desk.run("s:good")[2] == (
        "sftchat: error: no model says which task it was trained on; choose one with --task (available: other, quiz), or score without one by --scorer NAME\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing to score: give a MODEL, or --replies FILE for stored replies"),
        (("s:good", "--replies", "r.jsonl"), "--replies scores stored replies and would not ask MODEL 's:good'; leave one of them out"),
        (("s:good", "--task", "quizz"), "unknown task 'quizz'; did you mean 'quiz'? (available: quiz)"),
        (("s:good", "--min", "acuracy=1"), "unknown metric 'acuracy'; did you mean 'accuracy'? (available: accuracy)"),
        (("s:good", "--min", "accuracy"), "floor 'accuracy' must be METRIC=X with a number X, such as accuracy=0.8"),
        (("s:good", "--evalset", "none.jsonl"), "none.jsonl: no such evalset"),
        (("s:good", "--evalset", "broken.jsonl"), "broken.jsonl:1: "),
        (("s:good", "-o", "taken"), "'taken' already holds a report; add --overwrite to replace it, or give another folder with -o"),
        (("s:good", "-o", "gold.jsonl"), "output 'gold.jsonl' is a file; give a folder"),
        (("s:good", "-o", "gold.jsonl/out"), "output folder 'gold.jsonl/out' cannot be made: "),
        (("--replies", "none.jsonl"), "none.jsonl: no such file of replies"),
        (("--replies", "few.jsonl"), "few.jsonl: no reply to 'i1', 'i2', 'i3', 'i4', 'i5' and 2 more of the 8 items"),
        (("s:good", "--baseline", "few.jsonl"), "few.jsonl: no reply to 'i1', 'i2', 'i3', 'i4', 'i5' and 2 more of the 8 items"),
        (("s:good", "nowhere"), "no folder 'nowhere'; "),
        (("s:good", "--limit", "0"), "Invalid value for '--limit': 0 is not in the range x>=1"),
    ],
)
def test_impossible_options_are_refused_in_one_line_before_any_model_is_opened(desk: Desk, words: tuple[str, ...], message: str) -> None:
    Path("broken.jsonl").write_text("{\n", encoding="utf-8")
    Path("few.jsonl").write_text('{"id": "i0", "reply": "x"}\n', encoding="utf-8")
    Path("taken").mkdir()
    Path("taken/report.json").touch()

    code, out, err = desk.run(*words)

    assert (code, out, desk.opened, err.count("\n")) == (2, "", [], 1)
    assert err.lower().startswith(f"sftchat: error: {message}".lower())


def test_overwrite_replaces_a_report(desk: Desk) -> None:
    desk.run("s:good", "-o", "out")

    assert desk.run("s:bad", "-o", "out", "--overwrite")[0] == 0
    assert json.loads(Path("out/report.json").read_text(encoding="utf-8"))["results"][0]["model"] == "s:bad"


def test_a_task_without_gold_needs_an_evalset(desk: Desk) -> None:
    desk.registry = replace(desk.registry, tasks={"quiz": replace(desk.registry.tasks["quiz"], evalsets={})})

    assert desk.run("s:good")[2] == "sftchat: error: task 'quiz' brings no evalset; give one with --evalset FILE\n"
    assert desk.run("s:good", "--evalset", "gold.jsonl")[0] == 0


def test_help_has_an_example(desk: Desk) -> None:
    code, out, _ = desk.run("--help")

    assert code == 0
    assert "sftchat eval run --baseline baseline.jsonl --min f1=0.8 -o eval" in out
