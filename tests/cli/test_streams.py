"""Standard streams that are closed or full have their own exit code, never that of a gate."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

OUT = (">&-", ">/dev/full")
ERR = ("2>&-", "2>/dev/full")
BOTH = (">&- 2>&-", ">/dev/full 2>/dev/full")

ROWS = "".join(json.dumps({"id": f"i{k}", "messages": [{"role": "user", "content": "q"}], "gold": "a"}) + "\n" for k in range(3))
REPLIES = "".join(json.dumps({"id": f"i{k}", "reply": "b"}) + "\n" for k in range(3))

HELP, PLUGINS = ["--help"], ["plugins"]
GENERATE = ["data", "generate", "general", "-n", "2", "-o", "-"]
EVAL = ["eval", "--task", "general", "--evalset", "gold.jsonl", "--replies", "replies.jsonl"]
PASSES, FAILS = [*EVAL, "--min", "accuracy=0"], [*EVAL, "--min", "accuracy=0.9"]
WRONG = ["data", "genrate"]


def run(words: list[str], redirection: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the program like a shell, without some of its streams."""
    (folder / "gold.jsonl").write_text(ROWS, encoding="utf-8")
    (folder / "replies.jsonl").write_text(REPLIES, encoding="utf-8")
    command = shlex.join([sys.executable, "-m", "sftchat", *words])
    environment = {**os.environ, "NO_COLOR": "1", "XDG_DATA_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    return subprocess.run(
        ["sh", "-c", f"{command} {redirection}"], cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )


def lost(why: str) -> str:
    """The one line about a standard output that cannot be written."""
    return f"sftchat: error: standard output cannot be written: {why}\n"


@pytest.mark.parametrize("redirection", [*OUT, *ERR, *BOTH])
@pytest.mark.parametrize(
    ("words", "needed"),
    [
        pytest.param(HELP, "out", id="help"),
        pytest.param(PLUGINS, "out", id="plugins", marks=pytest.mark.slow),
        pytest.param([*GENERATE, "-q"], "out", id="generate -q", marks=pytest.mark.slow),
        pytest.param(GENERATE, "both", id="generate", marks=pytest.mark.slow),
        pytest.param(PASSES, "both", id="a gate that passes", marks=pytest.mark.slow),
        pytest.param(FAILS, "both", id="a gate that fails", marks=pytest.mark.slow),
        pytest.param(WRONG, "usage", id="wrong usage"),
    ],
)
def test_unwritable_output_is_3_and_wrong_usage_stays_2(words: list[str], needed: str, redirection: str, tmp_path: Path) -> None:
    done = run(words, redirection, tmp_path)

    if needed == "usage":
        assert done.returncode == 2
    elif needed == "out" and redirection in ERR:
        assert (done.returncode, done.stdout) == (0, run(words, "", tmp_path).stdout)
    else:
        assert done.returncode == 3
    if redirection in OUT and needed != "usage":
        assert done.stderr.endswith(lost("it is closed" if redirection == ">&-" else "no space left on device"))
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_no_file_gets_the_descriptor_of_a_closed_stream(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from sftchat.cli import console_script\n"
        "import sftchat.cli\n"
        "def instead():\n"
        "    numbers = [os.open('f', os.O_CREAT | os.O_RDWR) for _ in range(2)]\n"
        "    os._exit(40 + sum(number < 3 for number in numbers))\n"
        "sftchat.cli.main = instead\n"
        "console_script()\n"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} <&- >&- 2>&-"

    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False).returncode == 40


def test_a_closed_pipe_is_141(tmp_path: Path) -> None:
    done = run(GENERATE, "-q | true; exit 0", tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
