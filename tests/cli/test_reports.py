"""The files that ``sftchat eval`` writes on request, and its output for GitHub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import click
import pluggy
import pytest
from click.testing import CliRunner

from sftchat import Example, Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.eval import show_verdict
from sftchat.cli.session import Session
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report.markdown import COMMENT_BYTES, SUMMARY_BYTES
from sftchat.plugins import spec as hookspecs
from sftchat.plugins.manager import Registry

Run = Callable[..., tuple[int, str, str]]

SIZE = 12


def right_or_wrong(example: Example, reply: Reply) -> Score:
    right = reply.text == example.gold
    return Score({"n": 1, "right": int(right)}, reply.text, () if right else ("wrong",))


def quiz() -> Registry:
    """The task of the evalset in this folder."""
    manager = pluggy.PluginManager("sftchat")
    manager.add_hookspecs(hookspecs)
    task = Task(
        "quiz", "a quiz", lambda n, seed: (), right_or_wrong, (rate("accuracy", "right"),), evalsets={"gold": Path("gold.jsonl").absolute()}
    )
    return Registry(manager, {"quiz": task}, {})


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

    def call(*words: object) -> tuple[int, str, str]:
        code = main(["eval", "--quiet", *map(str, words)], obj=Session(None, quiz()))
        out, err = capsys.readouterr()
        return code, out, err

    return call


BAD = ("--replies", "bad.jsonl", "--baseline", "good.jsonl")


def test_every_requested_file_is_written_with_the_verdict(run: Run) -> None:
    code, _, err = run(*BAD, "--junit", "ci/junit.xml", "--markdown", "ci/report.md", "--html", "ci/page.html", "-o", "out")

    assert (code, err.split("\n")[-2]) == (1, "verdict: fail")
    assert sorted(path.name for path in Path("ci").iterdir()) == ["junit.xml", "page.html", "report.md"]
    gate = ElementTree.parse("ci/junit.xml").find("testsuite")
    assert gate is not None
    assert (gate.get("name"), gate.get("failures")) == ("gate", "1")
    assert "❌ **fail**" in Path("ci/report.md").read_text(encoding="utf-8")
    assert "<title>quiz: fail – sftchat eval</title>" in Path("ci/page.html").read_text(encoding="utf-8")
    assert Path("out/report.html").read_bytes() == Path("ci/page.html").read_bytes()


def test_no_file_is_written_unrequested(run: Run) -> None:
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


def test_an_inconclusive_gate_is_yellow_everywhere_and_passes_unless_strict(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six of twelve items broken and one fixed: p = .125, so a drop of more than half of the items is neither shown nor excluded."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for name, wrong in (("good", {11}), ("bad", set(range(6)))):
        rows = [{"id": f"i{n}", "reply": "x" if n in wrong else f"answer {n}"} for n in range(SIZE)]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    code, out, err = run(*BAD, "--json", "--markdown", "report.md", "--junit", "junit.xml", "--html", "page.html")
    commands = [line for line in err.splitlines() if line.startswith("::")]
    verdict = json.loads(out)["verdict"]
    open_ = f"a drop of {verdict['unsettled']['drop']:.1f} points of accuracy cannot be excluded"

    assert (code, verdict["outcome"], verdict["exit_code"]) == (0, "inconclusive", 0)
    assert err.splitlines()[-1].startswith(f"verdict: inconclusive; {open_}, the margin is 2; about ")
    assert commands[0].startswith(f"::warning title=sftchat eval quiz::inconclusive; {open_}")
    assert [line.split(" ")[0] for line in commands] == ["::warning"] * 7
    for path in ("report.md", "summary.md"):
        assert Path(path).read_text(encoding="utf-8").split("\n")[2].startswith(f"🟡 **inconclusive; {open_}")
    page = Path("page.html").read_text(encoding="utf-8")
    assert ('<section class="verdict unsure"' in page, "<title>quiz: inconclusive – sftchat eval</title>" in page) == (True, True)
    assert '<property name="verdict" value="inconclusive"/>' in Path("junit.xml").read_text(encoding="utf-8")

    code, _, err = run(*BAD, "--strict")
    assert (code, err.splitlines()[-1].startswith("verdict: inconclusive, which --strict does not accept; ")) == (4, True)


@pytest.mark.parametrize(
    ("verdict", "colour"),
    [(Verdict("pass"), "32"), (Verdict("fail"), "31"), (Verdict("inconclusive"), "33"), (Verdict("could not judge"), "33")],
)
def test_the_verdict_has_its_colour_on_a_terminal_and_none_with_no_color(verdict: Verdict, colour: str) -> None:
    runner = CliRunner()
    plain = f"verdict: {verdict.headline}\n"

    assert runner.invoke(click.Command("x", callback=lambda: show_verdict(verdict, {})), color=True).stderr == (
        f"\x1b[{colour}m{plain[:-1]}\x1b[0m\n"
    )
    assert runner.invoke(click.Command("x", callback=lambda: show_verdict(verdict, {"NO_COLOR": "1"})), color=True).stderr == plain


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


def test_outside_a_workflow_nothing_is_written_for_github(run: Run) -> None:
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


def test_text_of_a_reply_is_not_a_command_to_github(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    Path("bad.jsonl").write_text(
        "".join(json.dumps({"id": f"i{n}", "reply": "\n\n::error::x"}) + "\n" for n in range(SIZE)), encoding="utf-8"
    )

    _, out, err = run(*BAD)

    assert "::error::x" in out
    assert not any(line.lstrip().startswith("::") for line in out.split("\n"))
    assert err.startswith("::error title=sftchat eval quiz::")


@pytest.mark.parametrize("option", ["--junit", "--markdown", "--html"])
@pytest.mark.parametrize("name", ["gold.jsonl", "bad.jsonl", "good.jsonl"])
def test_no_report_overwrites_its_inputs(run: Run, option: str, name: str) -> None:
    before = Path(name).read_bytes()

    assert run(*BAD, option, name) == (
        2,
        "",
        f"sftchat: error: {option} '{name}' is read by this very command; give another file\n",
    )
    assert Path(name).read_bytes() == before


def test_the_location_of_the_report_is_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--replies", "good.jsonl", "-o", "out"], obj=Session(None, quiz())) == 0
    assert capsys.readouterr().err == "report: out/report.html\n"


def test_replies_that_are_read_are_not_overwritten(run: Run) -> None:
    before = Path("good.jsonl").rename("replies.jsonl").read_bytes()

    code, _, err = run("--replies", "replies.jsonl", "-o", ".")

    assert (code, Path("replies.jsonl").read_bytes()) == (2, before)
    assert err == "sftchat: error: -o '.' would write over 'replies.jsonl', which is read by this very command; give another folder\n"


def test_a_report_that_is_replaced_leaves_no_replies_behind(run: Run) -> None:
    run(*BAD, "-o", "out")
    Path("out/replies.mine.jsonl").write_text("kept")
    run("--replies", "bad.jsonl", "-o", "out", "--overwrite")

    assert sorted(path.name for path in Path("out").iterdir()) == ["replies.jsonl", "replies.mine.jsonl", "report.html", "report.json"]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("words", [[], ["--json"]], ids=["tables", "json"])
def test_the_verdict_is_readable_in_every_encoding(run: Run, tmp_path: Path, encoding: str, words: list[str]) -> None:
    odd = "".join(json.dumps({"id": f"i{n}", "reply": "韩立\ud800"}) + "\n" for n in range(SIZE))
    Path("bad.jsonl").write_text(odd, encoding="utf-8")
    program = (
        "import sys; from tests.cli.test_reports import quiz; from sftchat.cli import console_script;"
        "import sftchat.cli.session as shared; shared.Session.registry = quiz(); console_script()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "eval", "--quiet", *BAD, *words],
        capture_output=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip

    assert done.returncode == 1, done.stderr
    assert done.stderr.decode().endswith("verdict: fail\n")
    if words:
        reply = json.loads(done.stdout)["comparisons"][0]["changes"][0]["candidate"]["reply"]
        assert reply == "韩立\ud800"


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["tables", "json"])
def test_a_closed_pipe_changes_neither_report_nor_gate(run: Run, tmp_path: Path, words: list[str]) -> None:
    program = (
        "from tests.cli.test_reports import quiz; from sftchat.cli import console_script;"
        "import sftchat.cli.session as shared; shared.Session.registry = quiz(); console_script()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "eval", "--quiet", *BAD, *words, "--junit", "junit.xml"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 141

    assert Path("junit.xml").is_file()
