"""A check reports all problems, not only the first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from sftchat import DataError, Example, Metric, PluginError, Score, Task
from sftchat.cli import main
from sftchat.data.check import Findings, Problem, check
from sftchat.data.row_options import RowOptions

NO_REPLY = "no assistant turn, so nothing to learn from; add the reply, or check prompts with --policy no-reply=keep"


def picky(example: Example) -> Iterable[str]:
    """Row check that reports gold replies with exclamation marks."""
    if "!" in (example.gold or ""):
        yield "gold shouts"


def task(problems: object) -> Task:
    return Task(
        "demo",
        "a task",
        generate=lambda n, seed: [],
        score=lambda example, reply: Score({"n": 1}),
        metrics=(Metric("n", lambda sums: sums["n"]),),
        validate_row=problems,  # type: ignore[arg-type]
    )


def test_all_problems_of_a_file_are_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = (
        '{"prompt": "a", "completion": "1", "id": "x"}',
        '{"prompt": "a"',
        '{"prompt": "a", "completion": "2!", "id": "x"}',
        "",
        '{"messages": [{"role": "user", "content": "a"}], "gold": "1"}',
        '{"prompt": "", "completion": "2"}',
        '{"messages": [{"role": "user", "content": "a"}]}',
        '{"messages": [{"role": "user", "content": "a"}]}',
        '{"text": "b"}',
        '{"text": "c"}',
        '{"text": "b"}',
    )
    Path("f").write_text("\n".join(lines))
    assert check("f", task(picky)) == Findings(
        path="f",
        rows=10,
        replies=6,
        formats={"prompt-completion": 2, "evalset": 1, "messages": 2, "text": 3},
        first_lines={"prompt-completion": "1", "evalset": "5", "messages": "7", "text": "9"},
        problems=(
            Problem(
                "malformed",
                "f:2",
                "malformed JSON at column 15: expecting ',' delimiter; give one JSON object a line (JSONL) or one JSON array of objects, in UTF-8",
            ),
            Problem("duplicate-id", "f:3", 'id "x" is taken by line 1; give every row its own'),
            Problem("conflict", "f:3", "the same prompt as line 1 with another reply; keep one of them"),
            Problem("task", "f:3", "gold shouts"),
            Problem("duplicate", "f:5", "the same row as line 1; remove one"),
            Problem("invalid", "f:6", "prompt is empty; fill it or remove the row"),
            Problem("no-reply", "f:7", NO_REPLY),
            Problem("no-reply", "f:8", NO_REPLY),
            Problem("duplicate", "f:8", "the same row as line 7; remove one"),
            Problem("duplicate", "f:11", "the same row as line 9; remove one"),
        ),
    )


def test_duplicates_on_one_line_of_an_array_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").write_text('[{"text": "a"}, {"text": "b"}, {"text": "b"}]')
    assert check("f").problems == (Problem("duplicate", "f:1:32", "the same row as line 1:17; remove one"),)


def test_a_good_file_has_no_problems(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text('{"conversations": [{"from": "bo", "value": "a"}, {"from": "gpt", "value": "b"}]}')
    assert check(path, options=RowOptions({"bo": "user"})) == Findings(str(path), 1, 1, {"sharegpt": 1}, {"sharegpt": "1"}, ())


def test_a_missing_file_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        check(tmp_path / "f")
    assert str(caught.value) == f"{tmp_path}/f: no such file in folder '{tmp_path}'"


def test_a_check_of_a_plugin_that_fails_names_the_plugins_task_and_the_row(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text('{"text": "a"}')
    with pytest.raises(PluginError) as caught:
        check(path, task(lambda example: 1 / 0))
    line = test_a_check_of_a_plugin_that_fails_names_the_plugins_task_and_the_row.__code__.co_firstlineno + 4
    assert str(caught.value) == f"the check of task 'demo' failed on {path}:1, in {__file__}:{line}: ZeroDivisionError: division by zero"


def test_a_row_whose_replies_all_have_weight_0_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}\n')

    assert check(path, None).problems == (
        Problem("no-reply", f"{path}:1", "every assistant turn has weight 0, so nothing to learn from; leave the weight of one out"),
    )


@pytest.mark.parametrize(
    "token",
    ["<|im_start|>", "<|my_own|>", "<start_of_turn>", "<s>", "</s>", "<bos>", "<eos>", "[INST]", "[/INST]", "[gMASK]", "<｜User｜>"],
)
def test_a_template_token_in_a_text_row_is_a_warning_at_its_line_and_in_a_turn_a_problem_of_the_turn(tmp_path: Path, token: str) -> None:
    path = tmp_path / "f"
    rows = [{"text": "plain <p>HTML</p> [1] a|b"}, {"text": f"He said:\n{token} hello"}, {"prompt": f"What is {token}?", "completion": "b"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    problems = check(path, None).problems

    assert [problem for problem in problems if problem.kind == "template-token"] == [
        Problem(
            "template-token",
            f"{path}:2",
            f"text holds the marker {json.dumps(token, ensure_ascii=False)} as text, at character 10; "
            "the text is learned unchanged, so no template is added",
        )
    ]
    assert {problem.kind for problem in problems if problem.source == f"{path}:3"} <= {"special-token"}


def test_warnings_of_template_tokens_fail_a_check_only_under_that_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.jsonl").write_text('{"text": "[INST] a [/INST] b</s>"}\n')

    assert main(["data", "check", "f.jsonl", "-q"]) == 0
    assert capsys.readouterr().out == (
        'f.jsonl:1: text holds the marker "[INST]" as text, at character 1; the text is learned unchanged, so no template is added\n'
    )
    assert main(["data", "check", "f.jsonl", "-q", "--policy", "template-token=fail"]) == 1
    assert main(["data", "check", "f.jsonl", "-q", "--policy", "template-token=drop", "-o", "out.jsonl"]) == 0
    assert Path("out.jsonl").read_text() == ""
