"""``sftchat eval --policy``: tiers in every report, precedence of typed options, and docs/policy.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sftchat.cli import main
from sftchat.evaluation.limits import MEASURES, UNPARSABLE_ERRORS
from tests.cli.conftest import Desk
from tests.distributions import ROOT
from tests.pages import Command, follow_with

PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")


def policy(desk: Desk, text: str) -> str:
    (desk.folder / "gate.toml").write_text(text, encoding="utf-8")
    return "gate.toml"


def last_line(err: str) -> str:
    return err.splitlines()[-1]


def test_the_page_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)

    def run(command: Command) -> str:
        code = main(shlex.split(command.line)[1:])
        out, err = capsys.readouterr()
        assert code == command.code, f"{command.line}\n{err}"
        return out + err

    follow_with(PAGE, tmp_path, run)

    rules = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["verdict"]["rules"]
    cases = {
        case.get("name"): [child.tag for child in case]
        for case in ElementTree.parse(tmp_path / "junit.xml").iter("testcase")
        if case.get("classname") == "gate"
    }
    where = "tickets, new.jsonl on tickets.csv"
    assert [(rule["tier"], rule["rule"], rule["outcome"]) for rule in rules] == [
        ("block", "min accuracy", "met"),
        ("block", "max refused", "failed"),
        ("block", "must_pass", "met"),
        ("warn", "max tokens", "failed"),
        ("warn", "max truncated", "failed"),
        ("warn", "max_upper unparsable", "met"),
        ("warn", "gate accuracy", "inconclusive"),
    ]
    assert cases == {
        "verdict": ["failure"],
        **{f"{rule['tier']}: {rule['rule']}: {where}": [] for rule in rules if rule["outcome"] == "met"},
        f"block: max refused: {where}": ["failure"],
        f"warn: max tokens: {where}": ["skipped"],
        f"warn: max truncated: {where}": ["skipped"],
        f"warn: gate accuracy: {where}": ["skipped"],
    }
    assert "| block | ❌ max refused |" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert '<tr class="warn failed"><td>warn</td>' in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_the_page_lists_all_measures_and_error_classes() -> None:
    listed = re.findall(r"^\| `(\w+)` \| (?:mean|share)", PAGE, flags=re.MULTILINE)
    (classes,) = re.findall(r"error classes (`.*`) \|$", PAGE, flags=re.MULTILINE)

    assert listed == [*MEASURES]
    assert set(re.findall(r"`(\w+)`", classes)) == UNPARSABLE_ERRORS


def test_models_tasks_and_rules_come_from_the_file(desk: Desk) -> None:
    file = policy(desk, 'models = ["s:half"]\n[[tasks]]\ntask = "quiz"\nevalsets = ["gold"]\nblock = { min = { accuracy = 0.6 } }\n')

    code, out, err = desk.run("--policy", file, "--quiet")

    assert (code, desk.opened, out.splitlines()[0]) == (1, ["s:half"], "quiz on gold.jsonl, 8 items")
    assert err == "block: s:half on gold.jsonl: accuracy 0.500 is under the floor 0.6\nverdict: fail; failed: min accuracy\n"


def test_a_warning_leaves_the_exit_code_at_0_and_is_an_annotation(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    file = policy(desk, 'models = ["s:half"]\n[[tasks]]\ntask = "quiz"\nwarn = { min = { accuracy = 0.6 } }\n')
    monkeypatch.setenv("GITHUB_ACTIONS", "true")

    code, out, err = desk.run("--policy", file, "--quiet")

    assert (code, last_line(err)) == (0, "verdict: pass; warnings: min accuracy")
    assert "::warning title=sftchat eval quiz::pass; warnings: min accuracy%0Awarn: s:half" in out + err


@pytest.mark.parametrize(
    ("words", "code", "headline"),
    [
        ((), 1, "verdict: fail; failed: min accuracy"),
        (("--min", "accuracy=0.4"), 0, "verdict: pass"),
        (("s:good",), 0, "verdict: pass"),
        (("s:good", "--must-pass", "i0"), 0, "verdict: pass"),
        (("--must-pass", "i7", "--min", "accuracy=0.4"), 1, "verdict: fail; failed: must_pass"),
        (("--baseline", "s:good", "--min", "accuracy=0.1", "--min-drop", "60"), 0, "verdict: inconclusive; a drop of"),
        (("--baseline", "s:good", "--min", "accuracy=0.1", "--strict", "--min-drop", "60"), 4, "verdict: inconclusive, which --strict"),
    ],
)
def test_typed_options_take_precedence(desk: Desk, words: tuple[str, ...], code: int, headline: str) -> None:
    file = policy(desk, 'models = ["s:half"]\n[[tasks]]\ntask = "quiz"\nblock = { min = { accuracy = 0.6 } }\n')

    done = desk.run(*words, "--policy", file, "--quiet")

    assert (done[0], last_line(done[2]).startswith(headline)) == (code, True), done[2]


def test_a_task_named_beside_the_policy_is_evaluated_alone(desk: Desk) -> None:
    (desk.folder / "other.toml").write_text('scorer = { name = "exact" }\nevalset = "gold.jsonl"\n', encoding="utf-8")
    rules = "block = { min = { accuracy = 0.6 } }\n"
    file = policy(desk, f'models = ["s:half"]\n[[tasks]]\ntask = "quiz"\n{rules}[[tasks]]\ntask = "other.toml"\nsystem = "Hello."\n{rules}')

    both, alone = desk.run("--policy", file, "--quiet"), desk.run("--policy", file, "--task", "other.toml", "--quiet")

    assert last_line(both[2]) == "verdict: fail; lost: quiz, other; failed: quiz: min accuracy, other: min accuracy"
    assert (alone[0], alone[1].splitlines()[0]) == (1, "other on gold.jsonl, 8 items")
    assert [request.messages[0]["role"] for request in desk.closed[-1].requests][:1] == ["system"]  # type: ignore[attr-defined]


def test_samples_and_sampling_are_those_of_the_file(desk: Desk) -> None:
    text = 'models = ["s:half"]\n[[tasks]]\ntask = "quiz"\nsamples = 2\nsampling = { temperature = 0.5, max_new_tokens = 9 }\nwarn = { max = { truncated = 0 } }\n'

    code, out, _ = desk.run("--policy", policy(desk, text), "--quiet", "--json")

    report = json.loads(out)
    assert (code, report["sampling"]["temperature"], report["sampling"]["max_new_tokens"]) == (0, 0.5, 9)
    assert [metric["name"] for metric in report["results"][0]["metrics"]] == ["accuracy", "pass@1", "pass@2", "maj@2"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("block = { min = { acuracy = 1 } }", "gate.toml: tasks[0].block: unknown metric 'acuracy'; did you mean 'accuracy'? (available: accuracy)"),
        ("warn = { must_pass = ['i99'] }", "gate.toml: tasks[0].warn: --must-pass: no item 'i99' in the evalset, and no such file"),
        ("block = { gate = { accuracy = 2 } }", 'gate.toml: tasks[0].block.gate compares with a baseline; add baseline = "FILE" to the task, or --baseline FILE'),
        ("warn = { maximum = { tokens = 3 } }", "gate.toml: not a policy: unknown key 'tasks[0].warn.maximum' (keys: gate, min_drop, min, min_lower, max, max_upper, must_pass)"),
        ("evalsets = ['missing.csv']\nblock = { max = { tokens = 3 } }", "missing.csv: no such evalset"),
        ('[[tasks]]\ntask = "quiz"\nblock = { max = { tokens = 3 } }', "gate.toml: not a policy: tasks[0] has no rule; give a baseline, or rules in [tasks.block] or [tasks.warn]"),
    ],
)  # fmt: skip
def test_a_policy_is_checked_before_a_model_is_opened(desk: Desk, text: str, line: str) -> None:
    file = policy(desk, f'models = ["s:half"]\n[[tasks]]\ntask = "quiz"\n{text}\n')

    code, out, err = desk.run("--policy", file, "--quiet")

    assert (code, out, err) == (2, "", f"sftchat: error: {line}\n")
    assert desk.opened == []


def test_a_missing_baseline_of_a_policy_is_reported_with_its_path(desk: Desk) -> None:
    file = policy(desk, 'models = ["s:half"]\n[[tasks]]\ntask = "quiz"\nbaseline = "base.jsonl"\n')

    assert desk.run("--policy", file)[0] == 4
    assert desk.run("--policy", file, "--allow-missing-baseline", "--update-baseline", "base.jsonl", "--quiet")[0] == 0
    assert desk.run("--policy", file, "--quiet")[2].endswith("verdict: pass\n")
