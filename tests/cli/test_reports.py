"""The files that ``sftchat eval`` writes when asked, and what it tells GitHub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pluggy
import pytest

from sftchat import Example, Reply, Score, Task, hookspecs, rate
from sftchat.cli import main
from sftchat.cli.shared import Session
from sftchat.evaluation.markdown import COMMENT_BYTES, SUMMARY_BYTES
from sftchat.plugins import Registry

Run = Callable[..., tuple[int, str, str]]

SIZE = 12


def right_or_wrong(example: Example, reply: Reply) -> Score:
    right = reply.text == example.gold
    return Score({"n": 1, "right": int(right)}, reply.text, () if right else ("wrong",))


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """``sftchat eval`` over the stored replies good.jsonl and bad.jsonl in an empty folder; exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"i{n}", "messages": [{"role": "user", "content": f"question {n}"}], "gold": f"answer {n}"} for n in range(SIZE)]
    for name, lines in {
        "gold": rows,
        "good": [{"id": row["id"], "reply": row["gold"]} for row in rows],
        "bad": [{"id": row["id"], "reply": "x"} for row in rows],
    }.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    task = Task(
        "quiz", "a quiz", lambda n, seed: (), right_or_wrong, (rate("accuracy", "right"),), evalsets={"gold": tmp_path / "gold.jsonl"}
    )
    manager = pluggy.PluginManager("sftchat")
    manager.add_hookspecs(hookspecs)

    def call(*words: object) -> tuple[int, str, str]:
        code = main(["eval", "--quiet", *map(str, words)], obj=Session(None, Registry(manager, {"quiz": task}, {})))
        out, err = capsys.readouterr()
        return code, out, err

    return call


BAD = ("--replies", "bad.jsonl", "--baseline", "good.jsonl")


def test_every_file_asked_for_is_written_with_the_verdict_in_it(run: Run) -> None:
    code, _, err = run(*BAD, "--junit", "ci/junit.xml", "--markdown", "ci/report.md", "--html", "ci/page.html", "-o", "out")

    assert (code, err.split("\n")[-2]) == (1, "verdict: fail")
    assert sorted(path.name for path in Path("ci").iterdir()) == ["junit.xml", "page.html", "report.md"]
    gate = ElementTree.parse("ci/junit.xml").find("testsuite")
    assert gate is not None
    assert (gate.get("name"), gate.get("failures")) == ("gate", "1")
    assert "❌ **fail**" in Path("ci/report.md").read_text(encoding="utf-8")
    assert "<title>quiz: fail – sftchat eval</title>" in Path("ci/page.html").read_text(encoding="utf-8")
    assert Path("out/report.html").read_bytes() == Path("ci/page.html").read_bytes()


def test_nothing_is_written_that_nobody_asked_for(run: Run) -> None:
    before = sorted(Path().rglob("*"))

    run(*BAD)

    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--junit", "folder"), "--junit 'folder' is a folder; give a file"),
        (("--junit", "a.out", "--html", "./a.out"), "--junit and --html are both 'a.out'; give each a file of its own"),
        (("--markdown", "gold.jsonl/report.md"), "cannot make the folder of --markdown 'gold.jsonl/report.md': File exists"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_first(run: Run, words: tuple[str, ...], message: str) -> None:
    Path("folder").mkdir()

    assert run(*BAD, "-o", "out", *words) == (2, "", f"sftchat: error: {message}\n")
    assert not Path("out").exists()


def test_in_a_workflow_the_summary_is_appended_and_errors_are_annotated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("summary.md").write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")

    code, out, err = run(*BAD, "--json")

    summary = Path("summary.md").read_text(encoding="utf-8")
    commands = [line for line in err.splitlines() if line.startswith("::")]
    assert code == 1
    assert json.loads(out)["task"] == "quiz"
    assert summary.startswith("before\n## sftchat eval: quiz\n")
    assert "newly broken (12)" in summary
    assert commands[0].startswith("::error title=sftchat eval quiz::fail%0A")
    assert commands[1].endswith(",line=1,title=newly broken%3A i0::bad.jsonl on gold.jsonl: wrong")
    assert (len(commands), err.split("\n")[-2]) == (10, "verdict: fail")


def test_a_summary_that_is_nearly_full_is_not_overfilled(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    sizes = []
    for written in (SUMMARY_BYTES - 1500, SUMMARY_BYTES - 10):
        Path("summary.md").write_text("x" * (written - 1) + "\n", encoding="utf-8")
        run(*BAD)
        sizes.append(Path("summary.md").stat().st_size - written)

    assert 0 < sizes[0] <= 1500
    assert sizes[1] == 0


def test_a_summary_that_cannot_be_written_does_not_hide_the_verdict(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "missing/summary.md")

    code, _, err = run(*BAD)

    assert code == 1
    assert err.startswith("cannot write the step summary 'missing/summary.md': No such file or directory\n")


def test_outside_a_workflow_github_is_told_nothing(run: Run) -> None:
    assert "::" not in run(*BAD)[2]


def test_the_markdown_file_fits_into_a_comment(run: Run) -> None:
    rows = [json.loads(line) for line in Path("gold.jsonl").read_text(encoding="utf-8").splitlines()]
    many = [{**row, "id": f"{row['id']}-{n}"} for n in range(100) for row in rows]
    Path("gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many), encoding="utf-8")
    for name, reply in (("good", None), ("bad", "错" * 50)):
        lines = [{"id": row["id"], "reply": reply or row["gold"]} for row in many]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    run(*BAD, "--markdown", "report.md")

    assert COMMENT_BYTES - 500 < Path("report.md").stat().st_size <= COMMENT_BYTES
