"""The examples with the relation task on the pages on reports and CI equal the program's output."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from sftchat.cli import main
from tests.test_docs import commands

DOCS = Path(__file__).parents[2] / "docs"
CI, REPORT = ((DOCS / name).read_text(encoding="utf-8") for name in ("ci.md", "report.md"))


def test_every_ci_file_in_the_documentation_runs_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = pytest.importorskip("yaml")
    github, gitlab = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", CI, flags=re.DOTALL))
    lines = [step["run"] for step in github["jobs"]["gate"]["steps"] if "run" in step] + gitlab["gate"]["script"]
    gates = [shlex.split(line)[1:] for line in lines if line.startswith("sftchat ")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "baseline").mkdir()
    gold, accepted, replies = re.findall(r"```jsonl\n(.*?)```", REPORT, flags=re.DOTALL)
    for path, text in (("evalset.jsonl", gold), ("baseline/replies.jsonl", accepted), ("replies.jsonl", replies)):
        Path(path).write_text(text, encoding="utf-8")

    assert len(gates) == 2
    for words in gates:
        assert main(words) == 0
        assert "--min" in words
        assert capsys.readouterr().err.splitlines()[-1].startswith("verdict: inconclusive; ")
        for path in ("junit.xml", "report.md", "report.html"):
            Path(path).unlink()


def test_the_report_in_the_documentation_is_an_excerpt_of_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("gold.jsonl", "accepted.jsonl", "replies.jsonl")
    for name, text in zip(names, re.findall(r"```jsonl\n(.*?)```", REPORT, flags=re.DOTALL), strict=True):
        Path(name).write_text(text, encoding="utf-8")
    (command,) = [line for line in commands(REPORT) if "--json" in line]
    (shown,) = re.findall(r"```json\n(.*?)```", REPORT, flags=re.DOTALL)

    main(shlex.split(command)[1:])

    printed = json.loads(capsys.readouterr().out)
    excerpt = json.loads(shown)
    del printed["versions"], excerpt["versions"]
    for result in (*printed["results"], *printed["baselines"], *printed["comparisons"]):
        for key in ("metrics", "groups"):
            if key in result:
                result[key] = result[key][:1]
    assert printed == excerpt
