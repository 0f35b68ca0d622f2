"""Documented means tested: what README and docs show is what there is."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from sftchat.cli import VERBS, main, program

ROOT = Path(__file__).parent.parent
README, RESULTS, CI, REPORT = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md", "docs/ci.md", "docs/report.md")
)


def commands(text: str) -> list[str]:
    """Every ``sftchat …`` line of the code blocks, without its comment."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.split("| ")[-1] for line in lines if re.match(r"(echo .*\| )?sftchat ", line)]


def test_the_plugin_in_the_readme_is_the_one_that_is_tested() -> None:
    source = (ROOT / "tests" / "example_plugin" / "sftchat_example_plugin.py").read_text(encoding="utf-8")

    assert source.strip() in README


PAGES = [README, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in commands(page)}))
def test_every_command_shown_is_one_the_program_understands(line: str) -> None:
    verb, *rest = shlex.split(line.replace("…", "x"))[1:]
    command = program.get_command(click.Context(program), verb)
    assert command is not None, f"{verb} is no command"
    while isinstance(command, click.Group) and (rest or not command.invoke_without_command):
        command = command.commands[rest.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts}
    assert [word for word in rest if word.startswith("-") and word != "-" and word.split("=")[0] not in known] == []


def test_every_verb_is_in_the_readme_or_its_table() -> None:
    shown = {line.split()[1] for line in commands(README)}

    assert set(VERBS) - shown <= {"demo", "plugins"}


def test_every_room_of_the_map_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^  (\w+(?:\.py|/)) ", text, flags=re.MULTILINE)
    there = {path.name + ("/" if path.is_dir() else "") for path in (ROOT / "sftchat").iterdir()} - {
        "__pycache__/",
        "__main__.py",
        "py.typed",
    }

    assert set(listed) == there


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
        assert capsys.readouterr().err.endswith("verdict: pass\n")
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
