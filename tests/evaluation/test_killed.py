"""Evaluations in separate processes with one reply cache: killed at any moment, and two at once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ITEMS = 300
PROGRAM = """
import sys, time
from pathlib import Path
import pluggy
from sftchat import Score, Task, rate
from sftchat.plugins import spec as hookspecs
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import EngineType
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine

log = open("asked", "a")

def answer(request):
    time.sleep(0.003)
    print(request.id, file=log, flush=True)
    return request.messages[-1]["content"][::-1] * 3

def judge(example, reply):
    return Score({"n": 1, "right": int(reply.text == example.gold)}, reply.text)

task = Task("quiz", "", lambda n, seed: (), judge, (rate("accuracy", "right"),), evalsets={"gold": Path("gold.jsonl")})
manager = pluggy.PluginManager("sftchat")
engines = {"s": EngineType("s", "", None)}
manager.add_hookspecs(hookspecs)
session = Session(lambda name, **options: ScriptedEngine(answer, name=name), Registry(manager, {"quiz": task}, engines), lambda name, **options: "ab" * 32)
sys.exit(main(["eval", "s:model", "--quiet", "--overwrite", "-o", sys.argv[1]], obj=session))
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Folder with an evalset; the reply cache is in ``cache``, and ``asked`` gets a line for every answered request."""
    rows = [{"id": f"i{n}", "messages": [{"role": "user", "content": f"question {n}"}], "gold": "x"} for n in range(ITEMS)]
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "asked").touch()
    return tmp_path


def start(desk: Path, output: str, cache: str = "cache") -> subprocess.Popen[bytes]:
    environment = os.environ | {"SFTCHAT_CACHE_DIR": str(desk / cache)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, output], cwd=desk, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Exit code and standard error."""
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def asked(desk: Path) -> list[str]:
    return (desk / "asked").read_text(encoding="utf-8").split()


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def kill_somewhere(desk: Path, rng: random.Random, share: int) -> None:
    """Start an evaluation and kill it after a random number of answers or a random time, possibly before the first or after the last."""
    before, process = len(asked(desk)), start(desk, "killed")
    wanted, deadline = before + rng.randrange(share), time.monotonic() + 60
    if rng.random() < 0.6:
        while len(asked(desk)) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
    else:
        time.sleep(rng.uniform(0, 1.5))
    process.send_signal(signal.SIGKILL)
    ended(process)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_an_evaluation_killed_at_random_moments_ends_with_the_same_bytes(desk: Path, rounds: int) -> None:
    assert ended(start(desk, "whole", "other cache")) == (0, b"")
    (desk / "asked").write_text("", encoding="utf-8")
    rng = random.Random()

    for _ in range(rounds):
        kill_somewhere(desk, rng, ITEMS // rounds)
        left = {path.name for path in desk.glob("killed/*") if path.suffix != ".part"}
        assert left <= {"replies.jsonl", "report.html", "report.json"}
    assert ended(start(desk, "killed")) == (0, b"")

    assert not list(desk.glob("killed/.*"))
    assert written(desk / "killed") == written(desk / "whole")
    assert set(asked(desk)) == {f"i{n}" for n in range(ITEMS)}
    assert len(asked(desk)) <= ITEMS + rounds  # this engine answers one at a time, so at most one request was running at each kill


def test_two_concurrent_evaluations_share_a_cache_and_end_with_the_same_bytes(desk: Path) -> None:
    both = [start(desk, "one"), start(desk, "two")]

    assert [ended(process) for process in both] == [(0, b""), (0, b"")]
    assert written(desk / "one") == written(desk / "two")
    before = len(asked(desk))
    assert ended(start(desk, "three")) == (0, b"")
    assert (written(desk / "three"), len(asked(desk))) == (written(desk / "one"), before)
