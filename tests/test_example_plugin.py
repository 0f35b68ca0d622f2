"""A third-party distribution, installed and used from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.distributions import install, sftchat

HERE = Path(__file__).parent / "example_plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the built and installed distribution, for the path of a separate Python."""
    return install(HERE, tmp_path_factory.mktemp("plugin"))


def test_a_third_party_plugin_is_listed_with_its_distribution(site: Path) -> None:
    done = sftchat(site, "plugins", "--json")

    (found,) = [plugin for plugin in json.loads(done.stdout) if plugin["name"] == "shout"]
    assert found == {
        "name": "shout",
        "distribution": "sftchat-example-plugin 0.0.1",
        "tasks": ["shout"],
        "engines": ["echo"],
        "commands": ["again"],
        "problem": None,
    }


def test_its_data_is_generated_with_its_own_options(site: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"

    done = sftchat(site, "data", "generate", "shout", "-n", "2", "--seed", "5", "--option", "words=2", "-o", str(rows), "--quiet")

    assert (done.returncode, done.stderr) == (0, "")
    first = json.loads(rows.read_text(encoding="utf-8").splitlines()[0])
    asked, answered = (message["content"] for message in first["messages"])
    assert asked == f"shout: {answered.lower()}"
    assert len(answered.split()) == 2


def test_its_engine_replies_and_its_scorer_scores(site: Path, tmp_path: Path) -> None:
    rows = tmp_path / "gold.jsonl"
    sftchat(site, "data", "generate", "shout", "-n", "20", "--format", "evalset", "-o", str(rows))

    done = sftchat(site, "eval", "echo:x", "--task", "shout", "--evalset", str(rows), "--json")

    assert done.returncode == 0, done.stderr
    (metric,) = json.loads(done.stdout)["results"][0]["metrics"]
    assert (metric["name"], metric["value"]) == ("accuracy", 1.0)


def test_its_engine_can_be_used_by_ask(site: Path) -> None:
    done = sftchat(site, "ask", "echo:x", "hello 你好")

    assert (done.stdout, done.stderr, done.returncode) == ("HELLO 你好\n", "", 0)


def test_its_command_is_one_of_the_chat_s(site: Path) -> None:
    done = sftchat(site, "chat", "echo:x", "--task", "shout", input="/again\nshout: sea\n/again kindly\n/help again\n/nosuch\n")

    assert (done.stdout, done.returncode) == ("SEA\nKINDLY: SHOUT: SEA\n", 3)
    said = done.stderr.splitlines()
    assert said[0] == "sftchat: error: /again: there is no message yet"
    assert "/again [WORD]  ask once more, politely" in said
    assert "unknown command '/nosuch'" in said[-1]


def test_a_floor_that_is_missed_fails_the_command(site: Path, tmp_path: Path) -> None:
    rows = tmp_path / "gold.jsonl"
    rows.write_text(json.dumps({"id": "1", "messages": [{"role": "user", "content": "shout: sea"}], "gold": "LAND"}) + "\n")

    done = sftchat(site, "eval", "echo:x", "--task", "shout", "--evalset", str(rows), "--min", "accuracy=0.5")

    assert done.returncode == 1


@pytest.mark.slow
def test_a_model_is_trained_on_its_rows(site: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    done = sftchat(site, "train", "shout", "--model", str(tiny_checkpoint), "-n", "8", "--max-steps", "2", "-o", str(tmp_path / "run"))

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "sftchat.json").read_text())["task"] == "shout"
