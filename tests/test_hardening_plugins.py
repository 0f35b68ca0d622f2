"""Plugins that misbehave during their import, installed next to the first-party ones and loaded by the real program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributions import sftchat

ENGINE = """
from sftchat import Chunk, EngineType, hookimpl

class Engine:
    name = "yes"

    def generate(self, requests):
        for request in requests:
            yield Chunk(request.id, "yes", (0,), "stop", 1)

    def close(self):
        pass

@hookimpl
def sftchat_register_engines():
    return [EngineType("yes", "says yes", lambda rest, options: Engine())]
"""
SHADOW = """
from sftchat import Score, Task, hookimpl, rate

@hookimpl
def sftchat_register_tasks():
    return [Task("general", "not the one you think", lambda n, seed: [], lambda example, reply: Score({"n": 1}), (rate("x", "n"),))]
"""


def site(folder: Path, source: str, name: str = "odd") -> Path:
    """Write a folder with an installed plugin of one module."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[sftchat]\n{name} = {name}_module\n", encoding="utf-8")
    (folder / f"{name}_module.py").write_text(source, encoding="utf-8")
    return folder


def found(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """Return the plugin's entry in ``plugins --json``; the first-party plugins must be listed too."""
    assert done.returncode == 0, done.stderr
    plugins = json.loads(done.stdout)
    assert {"chat", "general"} <= {plugin["name"] for plugin in plugins if not plugin["problem"]}
    (plugin,) = [plugin for plugin in plugins if plugin["name"] == "odd"]
    return plugin  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("class Worse(BaseException): pass\nraise Worse('than\\nthat')", "Worse: than that"),
        ("raise GeneratorExit", "GeneratorExit:"),
        ("def (", "SyntaxError: invalid syntax (odd_module.py, line 1)"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        (SHADOW, "task 'general' is already registered by plugin 'general'"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_reported_and_affects_nothing_else(source: str, problem: str, tmp_path: Path) -> None:
    folder = site(tmp_path, source)

    described = found(sftchat(folder, "plugins", "--json"))

    assert (described["distribution"], described["problem"], described["tasks"]) == ("odd 1.0", problem, [])


def test_a_task_name_stays_with_its_owner_when_a_plugin_registers_it_too(tmp_path: Path) -> None:
    folder = site(tmp_path, SHADOW, "aaa")

    done = sftchat(folder, "data", "generate", "general", "-n", "1", "-o", "-", "--quiet")

    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert done.stderr == (
        "sftchat: warning: task 'general' is already registered by plugin 'general', so the one that aaa 1.0 brings is not loaded\n"
    )


def test_output_of_a_plugins_import_is_not_on_standard_output(tmp_path: Path) -> None:
    noise = "import os, subprocess, sys\nprint('one')\nsys.__stdout__.write('two\\n'); sys.__stdout__.flush()\n"
    folder = site(tmp_path, noise + "os.write(1, b'three\\n')\nsubprocess.run(['echo', 'four'])\n" + ENGINE)

    done = sftchat(folder, "ask", "yes:x", "really?")
    listed = found(sftchat(folder, "plugins", "--json"))

    assert (done.returncode, done.stdout) == (0, "yes\n")
    assert sorted(done.stderr.split()) == ["four", "one", "three", "two"]
    assert listed["engines"] == ["yes"]


def test_a_plugin_with_a_slow_import_is_named_during_it(tmp_path: Path) -> None:
    folder = site(tmp_path, "import time; time.sleep(5.5)\n" + ENGINE)

    done = sftchat(folder, "ask", "yes:x", "really?")

    assert (done.returncode, done.stdout, done.stderr) == (0, "yes\n", "sftchat: still importing plugin 'odd' (odd 1.0) …\n")


def test_a_program_without_standard_streams_loads_its_plugins(tmp_path: Path) -> None:
    code = "import os; os.close(1); os.close(2)\nfrom sftchat.plugins.manager import load_plugins\nos._exit('general' not in load_plugins().tasks)"

    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
