"""docs/tutorial.md, every command block from the first to the last, in an environment and a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.distributions import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A virtual environment that finds what the tests run with, and installs on top of it without a network."""
    folder = tmp_path_factory.mktemp("tutorial") / "venv"
    venv.create(folder, with_pip=True, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    ours = [str(Path(pytest.__file__).parent.parent), str(ROOT), str(ROOT / "plugins")]
    (folder / "lib" / version / "site-packages" / "ours.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")
    for name in ("sftchat", "pytest"):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {name} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_BUILD_ISOLATION": "false",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
    }


def test_every_command_of_the_tutorial_does_what_it_says(environment: dict[str, str], tmp_path: Path) -> None:
    lines = [line for block in BLOCKS for line in block.splitlines()]
    assert len(lines) > 10

    for line in lines:
        command, _, comment = line.partition("   # ")
        expected = int(comment.removeprefix("exits with ")) if comment else 0
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == expected, f"{line}\n{done.stdout}\n{done.stderr}"

    assert (tmp_path / "report" / "report.html").is_file()
    assert (tmp_path / "worse" / "report.html").is_file()


def test_the_answer_of_the_tutorials_job_is_the_command_that_was_run() -> None:
    workflow = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    gate = next(line.split("run: ")[1] for line in workflow[0].splitlines() if "sftchat eval" in line)

    run = next(line for block in BLOCKS for line in block.splitlines() if line.startswith("sftchat eval --task"))
    assert gate.replace(" replies.jsonl", " report/replies.jsonl").removesuffix(" --junit junit.xml") == run
