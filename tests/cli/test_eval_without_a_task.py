"""``sftchat eval`` with a table, a ready-made scorer or a task file: no plugin, no Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftchat import Reply
from sftchat.cli import main
from sftchat.engine import Request
from tests.cli.conftest import Desk

ROWS = (("paper jam", "printer"), ("no ink", "printer"), ("wrong amount", "invoice"), ("opening hours", "other"))


@pytest.fixture
def tickets(desk: Desk) -> Desk:
    """The desk with a table of tickets and a model that knows the printer's."""

    def reply(request: Request) -> str:
        text = request.prompt or request.messages[-1]["content"]
        return "It is the printer." if "jam" in text or "ink" in text else "nothing"

    (desk.folder / "gold.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS), encoding="utf-8")
    desk.engines["s:clerk"] = reply
    desk.engines["s:lucky"] = lambda request: "printer" if request.sampling.seed % 2 else "invoice"
    return desk


def requests(desk: Desk) -> list[Request]:
    return [request for engine in desk.closed for request in engine.requests]  # type: ignore[attr-defined]


def test_a_table_and_a_scorer_are_enough(tickets: Desk) -> None:
    code, out, err = tickets.run(
        "s:clerk", "--evalset", "gold.csv", "--scorer", "contains", "--system", "Sort it.", "--max-new-tokens", 20, "--quiet", "--json"
    )

    assert (code, err) == (
        0,
        "sftchat: gold.csv: prompt from the column 'text', gold reply from 'label'; --map NAME=COLUMN reads others\n",
    )
    report = json.loads(out)
    assert (report["task"], report["results"][0]["metrics"][0]["value"], report["sampling"]["max_new_tokens"]) == ("contains", 0.5, 20)
    assert requests(tickets)[0].messages == ({"role": "system", "content": "Sort it."}, {"role": "user", "content": "paper jam"})


def test_the_labels_of_choice_are_the_gold_replies(tickets: Desk) -> None:
    code, out, _ = tickets.run("s:clerk", "--evalset", "gold.csv", "--scorer", "choice", "--quiet", "--json")

    assert (code, json.loads(out)["results"][0]["errors"]) == (0, {"unknown_label": 2})


def test_a_gold_reply_that_is_no_label_is_named_with_its_line(tickets: Desk) -> None:
    code, _, err = tickets.run("s:clerk", "--evalset", "gold.csv", "--scorer", "choice", "--labels", "printer,invoice")

    assert code == 2
    assert err.split("\n")[-2].startswith("sftchat: error: gold.csv:5: ")


def test_examples_come_from_the_other_items(tickets: Desk) -> None:
    tickets.run("s:clerk", "--evalset", "gold.csv", "--scorer", "exact", "--few-shot", 1, "--prompt", "Q: {text}", "--quiet")

    assert [message["content"] for message in requests(tickets)[0].messages][1:] == ["printer", "Q: paper jam"]


def test_examples_come_from_a_table_like_the_evalset(tickets: Desk) -> None:
    (tickets.folder / "solved.csv").write_text("text,label\ntoner is empty,printer\n", encoding="utf-8")
    (tickets.folder / "task.toml").write_text(
        'evalset = "gold.csv"\nscorer = { name = "exact" }\nfew_shot = { k = 1, file = "solved.csv" }\n', encoding="utf-8"
    )

    tickets.run("s:clerk", "--evalset", "gold.csv", "--scorer", "exact", "--few-shot-file", "solved.csv", "--quiet")
    tickets.run("s:clerk", "--task", "task.toml", "--fresh", "--quiet")

    asked = [[message["content"] for message in request.messages] for request in requests(tickets)]
    assert (asked[0], asked[4]) == (["toner is empty", "printer", "paper jam"],) * 2


def test_a_raw_prompt_has_no_template(tickets: Desk) -> None:
    tickets.run("s:clerk", "--evalset", "gold.csv", "--scorer", "exact", "--raw-prompt", "--stop", "\n", "--quiet")

    request = requests(tickets)[0]
    assert (request.prompt, request.messages, request.sampling.stop) == ("paper jam", (), ("\n",))


def test_samples_are_reported_and_stored_with_their_item(tickets: Desk) -> None:
    code, out, _ = tickets.run(
        "s:lucky", "--evalset", "gold.csv", "--scorer", "exact", "-k", 4, "--temperature", 0.5, "-o", "report", "--quiet", "--json"
    )

    assert code == 0
    assert [metric["name"] for metric in json.loads(out)["results"][0]["metrics"]] == ["accuracy", "pass@1", "pass@2", "pass@4", "maj@4"]
    stored = [json.loads(line) for line in Path("report/replies.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [len(row["samples"]) for row in stored] == [3, 3, 3, 3]
    again = tickets.run(
        "--replies", "report/replies.jsonl", "--evalset", "gold.csv", "--scorer", "exact", "-k", 4, "--temperature", 0.5, "--json"
    )
    assert json.loads(again[1])["results"][0]["metrics"] == json.loads(out)["results"][0]["metrics"]


def test_a_baseline_compares_only_with_the_same_settings(tickets: Desk) -> None:
    words = ("s:clerk", "--evalset", "gold.csv", "--scorer", "contains", "--quiet")
    tickets.run(*words, "--system", "Sort it.", "--update-baseline", "base.jsonl")

    same, other = (tickets.run(*words, "--system", system, "--baseline", "base.jsonl") for system in ("Sort it.", "Guess."))

    assert (same[0], other[0]) == (0, 4)
    assert other[2].endswith(
        'made with other settings: system "Sort it." then, "Guess." now; give the same, or write the baseline again with --update-baseline\n'
    )


def test_thoughts_can_be_switched_off_for_the_template(tickets: Desk) -> None:
    tickets.run("s:clerk", "--evalset", "gold.csv", "--scorer", "exact", "--thinking", "off", "--quiet")

    assert tickets.options[0]["template_arguments"] == {"enable_thinking": False}


def test_unfinished_thoughts_are_a_bucket_of_their_own(tickets: Desk) -> None:
    tickets.engines["s:thinker"] = lambda request: Reply("<think>it may be the printer", "length")

    _, out, _ = tickets.run("s:thinker", "--evalset", "gold.csv", "--scorer", "contains", "--quiet", "--json")

    assert json.loads(out)["results"][0]["errors"] == {"unfinished_thoughts": 4}


def test_a_task_file_is_a_task(tickets: Desk) -> None:
    Path("tickets.toml").write_text(
        'prompt = "Ticket: {text}"\nevalset = "gold.csv"\nmust_pass = ["row-000003"]\nscorer = { name = "contains" }\n', encoding="utf-8"
    )

    code, out, err = tickets.run("s:clerk", "--task", "tickets.toml", "--quiet")

    assert (code, out.split("\n")[0]) == (1, "tickets on gold.csv, 4 items")
    assert "row-000003" in err


def test_a_scorer_option_needs_a_scorer(tickets: Desk) -> None:
    assert tickets.run("s:clerk", "--task", "quiz", "--labels", "a,b")[::2] == (
        2,
        "sftchat: error: --labels is for a ready-made scorer; add --scorer choice\n",
    )


def test_code_of_replies_runs_only_when_it_is_allowed(desk: Desk) -> None:
    row = {
        "id": "d",
        "prompt": "Write double(n).",
        "gold": "double = lambda n: 2 * n",
        "tests": "assert double(3) == 6",
        "entry_point": "double",
    }
    (desk.folder / "code.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    desk.engines["s:coder"] = lambda request: "```python\ndef double(n):\n    return n + n\n```"
    words = ("s:coder", "--evalset", "code.jsonl", "--scorer", "python_tests", "--quiet", "--json")

    refused = desk.run(*words)
    code, out, _ = desk.run(*words, "--allow-code")

    assert refused[::2] == (
        2,
        "sftchat: error: the scorer python_tests runs code that the model wrote; allow it with --allow-code\n",
    )
    assert (code, json.loads(out)["results"][0]["metrics"][0]["value"]) == (0, 1.0)
    assert desk.run(*words)[0] == 2


def test_a_task_file_or_a_config_file_cannot_allow_code(desk: Desk) -> None:
    Path("coding.toml").write_text('evalset = "code.jsonl"\nscorer = { name = "python_tests", allow_code = true }\n', encoding="utf-8")
    Path("train.toml").write_text("allow-code = true\n", encoding="utf-8")

    code, _, err = desk.run("s:coder", "--task", "coding.toml")

    assert (code, "unknown argument 'allow_code'" in err) == (2, True)
    assert main(["train", "general", "-o", "run", "--config", "train.toml"]) == 2
