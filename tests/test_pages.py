"""The pages with commands in sequence are followed from first to last, each in its own environment and folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.distributions import ROOT
from tests.pages import blocks, commands, environment, follow

DOCS = ROOT / "docs"
TUTORIAL = (DOCS / "tutorial.md").read_text(encoding="utf-8")
FOLLOWED = ("tutorial", "lora", "several-gpus", "from-data", "chat-to-data", "evalsets")


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLLOWED)
def test_the_commands_of_a_page_have_the_output_shown(name: str, tmp_path: Path) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    folder = tmp_path / "work"
    folder.mkdir()

    follow(page, folder, environment(tmp_path / "venv"))


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_tested_page_has_commands_that_run_everywhere(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    found = [command for block in blocks(page) if not block.language for command in commands(block)]

    assert sum(command.runs_here for command in found) >= 2


def test_the_job_of_the_tutorial_runs_the_tested_command() -> None:
    (workflow,) = re.findall(r"```yaml\n(.*?)```", TUTORIAL, flags=re.DOTALL)
    gate = next(line.split("run: ")[1] for line in workflow.splitlines() if "sftchat eval" in line)

    run = next(
        command.line
        for block in blocks(TUTORIAL)
        if not block.language
        for command in commands(block)
        if command.line.startswith("sftchat eval --task")
    )
    assert gate.replace(" replies.jsonl", " report/replies.jsonl").removesuffix(" --require-baseline --junit junit.xml") == run


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("```\necho one   # exits with 1\n```\n", "echo one\none"),
        ("```\nfalse\n```\n", "false\n"),
        ("```\necho one\necho two\n```\n\n```text\ntwo\none\n```\n", "not printed: one"),
        ("```\necho 5 s\n```\n\n```text\n… min\n```\n", "not printed: … min"),
        ('```json title="a.json"\n[1]\n```\n\n```\ncat a.json\n```\n\n```text\n[2]\n```\n', "not printed: [2]"),
    ],
)
def test_a_page_with_wrong_output_is_detected(page: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as error:
        follow(page, tmp_path, {"PATH": "/usr/bin:/bin"})

    assert str(error.value).startswith(fault)


def test_a_right_page_passes(tmp_path: Path) -> None:
    page = """
```json title="a/b.json"
[1]
```

```
cat a/b.json
echo took 5 s \\
  in all
false   # exits with 1
touch there   # needs a GPU
```

```text
[1]
…
took … s in all
```
"""
    follow(page, tmp_path, {"PATH": "/usr/bin:/bin"})

    assert [path.name for path in tmp_path.iterdir()] == ["a"]
