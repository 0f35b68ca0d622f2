"""``python_tests``: tests of every form, errors, limits, and code that wants to deceive or to harm."""

from __future__ import annotations

import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftchat import Example, Reply, Score
from sftchat.errors import UsageError
from sftchat.scorers import make_scorer, python_tests
from sftchat.scorers.code_runner import PROTECTIONS, Job, Outcome, missing_protections, run_code
from sftchat.scorers.consent import code_allowed

PROTECTED = pytest.mark.skipif(bool(missing_protections()), reason=f"the system lacks {missing_protections()}")
TESTS = "assert f() == 7"
RIGHT = "def f():\n    return 7\n"


@pytest.fixture(autouse=True)
def allowed() -> Iterator[None]:
    with code_allowed():
        yield


def outcome(code: str, tests: str = TESTS, entry_point: str = "", **limits: Any) -> Outcome:
    return run_code(Job(code, tests, entry_point, **{"seconds": 1.0, **limits}))


def error(code: str, tests: str = TESTS, **limits: Any) -> str:
    return outcome(code, tests, **limits).error


def scored(reply: str, metadata: dict[str, Any], prompt: str = "?", **arguments: Any) -> Score:
    return python_tests(**arguments).score(Example(({"role": "user", "content": prompt},), metadata=metadata), Reply(reply))


def test_it_is_off_unless_code_is_allowed() -> None:
    import contextvars

    with pytest.raises(UsageError, match=r"the scorer python_tests runs code that the model wrote; allow it with --allow-code"):
        contextvars.Context().run(make_scorer, "python_tests")


def test_the_example_of_the_docstring() -> None:
    code = "def double(n): return 2 * n"

    assert scored(code, {"tests": "assert double(3) == 6"}) == Score({"n": 1, "correct": 1}, code)


@pytest.mark.parametrize(
    ("code", "tests", "entry_point", "expected"),
    [
        (RIGHT, TESTS, "", ""),
        (RIGHT, "def check(candidate):\n    assert candidate() == 7", "f", ""),
        (RIGHT, "def check(candidate):\n    assert candidate() == 8", "f", "failed_test"),
        (RIGHT, "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(), 7)", "", ""),
        (RIGHT, "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(), 8)", "", "failed_test"),
        (RIGHT, "import unittest\nclass T(unittest.TestCase):\n    def test(self): f(1)", "", "runtime_error"),
        (RIGHT, "import unittest\nclass T(unittest.TestCase):\n    pass", "", "failed_test"),
        ("def g(): pass", TESTS, "", "runtime_error"),
        ("def g(): pass", "def check(candidate): pass", "f", "runtime_error"),
        ("1 / 0", TESTS, "", "runtime_error"),
        ("return 7", TESTS, "", "syntax_error"),
        ("def f():", TESTS, "", "syntax_error"),
        ("def f(): return f()", TESTS, "", "runtime_error"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 7\ndef f(): return A().x", TESTS, "", ""),
        ("import re, json, math, collections, random, functools, typing\n" + RIGHT, TESTS, "", ""),
        ("if __name__ == '__main__':\n    raise ValueError\n" + RIGHT, TESTS, "", ""),
        ("import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()\n" + RIGHT, TESTS, "", ""),
        ("open('mine.txt', 'w').write('7')\ndef f(): return int(open('mine.txt').read())", TESTS, "", ""),
    ],
)  # fmt: skip
def test_code_is_right_when_its_tests_pass(code: str, tests: str, entry_point: str, expected: str) -> None:
    assert outcome(code, tests, entry_point, seconds=5.0).error == expected


HOSTILE = {
    "endless loop": ("while True: pass", "timeout"),
    "sleeps": ("import time\ntime.sleep(100)", "timeout"),
    "ignores the signal": ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "timeout"),
    "10 GB": ("x = bytearray(10 << 30)", "memory"),
    "10 GB in pieces": ("x = []\nwhile True: x.append(bytearray(1 << 20))", "memory"),
    "fork bomb": ("import os\nwhile True: os.fork()", "runtime_error"),
    "starts programs": ("import subprocess\nsubprocess.run(['true'])", "runtime_error"),
    "kills the parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", "runtime_error"),
    "kills everything": ("import os, signal\nos.kill(-1, signal.SIGKILL)", "runtime_error"),
    "raises its limits": ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))", "runtime_error"),
    "opens a connection": ("import socket\nsocket.create_connection(('127.0.0.1', PORT))", "runtime_error"),
    "reads the user's files": ("open('SECRET')", "runtime_error"),
    "reads the parent's environment": ("import os\nopen(f'/proc/{os.getppid()}/environ').read()", "runtime_error"),
    "writes outside": ("open('OUTSIDE', 'w')", "runtime_error"),
    "makes a folder outside": ("import os\nos.mkdir('OUTSIDE')", "runtime_error"),
    "leaves early": ("import sys\nsys.exit(0)", "runtime_error"),
    "leaves at once": ("import os\nos._exit(0)", "runtime_error"),
    "leaves in the test": ("import os\ndef f(): os._exit(0)", "runtime_error"),
    "leaves in the test politely": ("def f(): raise SystemExit(0)", "runtime_error"),
    "crashes": ("import ctypes\nctypes.string_at(0)", "runtime_error"),
    "writes the answer itself": ("import os\nfor n in range(3, 20):\n    try: os.write(n, b'\\n\\n\\n')\n    except OSError: pass\nos._exit(0)", "runtime_error"),
    "closes everything": ("import os\nos.closerange(0, 64)", "runtime_error"),
    "a large file": ("open('big', 'wb').write(bytes(1 << 28))", "runtime_error"),
    "other assertions": ("import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef f(): return 8", "failed_test"),
    "other built-in functions": ("import builtins\nbuiltins.abs = lambda x: 0\nabs = lambda x: 0\ndef f(): return 8", "failed_test"),
    "another AssertionError": ("import builtins\nbuiltins.AssertionError = SystemExit\nAssertionError = int\ndef f(): return 8", "failed_test"),
    "another exit": ("import os\nos._exit = os.write = os.read = lambda *a: None\ndef f(): return 8", "failed_test"),
}  # fmt: skip
HARMLESS = {
    "prints a gigabyte": "import sys\nfor _ in range(1024): sys.stdout.write('x' * (1 << 20))\n",
    "deletes its folder": "import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\n",
    "closes its folder": "import os\nos.chmod(os.getcwd(), 0)\n",
    "looks for keys": "import os\nassert not [name for name in os.environ if 'KEY' in name or 'TOKEN' in name]\n",
    "reads input": "import sys\nassert sys.stdin.read() == ''\n",
}
UNITTEST = "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(), 7)\nassert abs(f() - 7) < 1e-6"


@PROTECTED
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_is_wrong_and_ends(name: str, tmp_path: Path) -> None:
    code, expected = HOSTILE[name]
    secret, outside = tmp_path / "secret.txt", tmp_path / "outside"
    secret.write_text("key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = code.replace("PORT", str(server.getsockname()[1])).replace("SECRET", str(secret)).replace("OUTSIDE", str(outside))
        started = time.monotonic()
        found = error(code if "def f" in code else f"{code}\n{RIGHT}", UNITTEST)
        took = time.monotonic() - started

    assert found == expected
    assert took < 6
    assert not outside.exists()


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_mischief_has_no_effect(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    assert error(HARMLESS[name] + RIGHT, seconds=10.0) == ""


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mischief = "import os\nfor n in range(50): open(f'{n}', 'w').write('x')\nos.chmod('1', 0)\nos.chmod(os.getcwd(), 0)\n"
    before = len([*Path("/proc/self/fd").iterdir()])

    for number in range(3):
        assert error(f"{mischief}{RIGHT}# {number}") == ""

    assert list(tmp_path.iterdir()) == []
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_run_costs_little_beside_the_code() -> None:
    error(RIGHT)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    for number in range(20):
        assert error(f"{RIGHT}# {number} of 20") == ""

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 20 < 0.1


def test_code_runs_in_threads_at_once() -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda number=number: found.append(error(f"{RIGHT}# thread {number}"))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [""] * 8


@PROTECTED
def test_the_protections_are_reported() -> None:
    assert outcome("pass", "").protections == PROTECTIONS


PROMPT = 'import math\n\n\ndef area(r: float) -> float:\n    """Area of a circle."""\n'
AREA = {"tests": "def check(candidate):\n    assert abs(candidate(1.0) - 3.14159) < 1e-4", "entry_point": "area"}


@pytest.mark.parametrize(
    "reply",
    [
        "    return math.pi * r * r",
        "return math.pi * r * r",
        "\n    return math.pi * r * r\n\n\nprint('done')",
        "    return math.pi * r * r\n\nThis is the area.",
        "return math.pi * r * r\n\nThis is the area.",
        "```python\ndef area(r):\n    return math.pi * r * r\n```",
        f"Sure:\n```python\n{PROMPT}    return math.pi * r * r\n```",
        "```python\n    return math.pi * r * r\n```",
    ],
)
@pytest.mark.parametrize("prompt", [PROMPT, f"Complete this function:\n```python\n{PROMPT}```"])
def test_a_completion_continues_the_prompt_or_repeats_its_function(reply: str, prompt: str) -> None:
    assert scored(reply, AREA, prompt, completion=True).errors == ()


def test_of_several_blocks_the_one_with_the_entry_point_counts() -> None:
    reply = "```python\ndef f():\n    return 7\n```\nUse it so:\n```python\nprint(f())\n```"

    assert scored(reply, {"tests": [TESTS, "assert f() < 8"], "entry_point": "f"}).errors == ()
    assert scored(reply, {"tests": TESTS}).errors == ("runtime_error",)
    assert scored("Sorry, I cannot.", {"tests": TESTS}).errors == ("refused",)
    assert scored("", {"tests": TESTS}).errors == ("empty",)
    assert scored("def f(", {"tests": TESTS}).errors == ("syntax_error",)
    assert scored("7\0", {"tests": TESTS}).errors == ("syntax_error",)


def test_rows_need_tests_that_are_python() -> None:
    def problems(gold: str | None, **metadata: Any) -> list[str]:
        return list(python_tests().validate_row(Example((), gold, metadata=metadata)))

    assert problems(None, tests=TESTS) == []
    assert problems(RIGHT, tests=[TESTS]) == []
    assert problems(None) == ["the row has no metadata 'tests' with Python statements"]
    assert problems(None, tests="assert (") == ["the metadata 'tests' is no Python"]
    assert problems("def f(", tests=TESTS) == ["the gold reply is no Python"]
    assert problems(None, tests="def check(candidate): pass") == [
        "the metadata 'tests' defines check(candidate), so the row needs the metadata 'entry_point'"
    ]


@pytest.mark.parametrize("arguments", [{"seconds": 0.0}, {"seconds": 1e9}, {"memory_mb": 1}])
def test_limits_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be above 0, seconds at most 600 and memory_mb at least 64"):
        make_scorer("python_tests", arguments)


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    with pytest.raises(UsageError, match="needs Linux or macOS"):
        python_tests()
