"""The identity of a model covers the files that are opened: every layout is loaded, its reads are compared with the list, and nothing connects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inference.layouts_kit import LAYOUTS, REFUSED, Parts, observe


@pytest.fixture(scope="session")
def parts(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    from tests.conftest import make_checkpoint

    return Parts(tiny_checkpoint, make_checkpoint(tmp_path_factory.mktemp("parts") / "other", 1))


@pytest.mark.parametrize("name", ["hidden shards", "several templates", "an adapter with its own tokenizer"])
def test_only_the_listed_files_affect_the_model(name: str, parts: Parts, tmp_path: Path) -> None:
    seen = observe(name, tmp_path, parts)

    assert seen["whole"][0] != "refused"
    assert seen["bare"] == seen["spoilt"] == seen["whole"]
    assert seen["unnoticed"] == []
    assert seen["same again"]


@pytest.mark.slow
def test_every_file_opened_for_a_reply_is_in_the_identity_and_nothing_connects(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    program = [sys.executable, "-W", "ignore", "-m", "tests.inference.layouts_kit", str(tmp_path)]
    done = subprocess.run(program, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    seen = found["seen"]

    assert found["attempt"] != []  # a connection would be noticed
    assert list(seen) == list(LAYOUTS)
    assert {name for name, one in seen.items() if one["whole"][0] == "refused"} == REFUSED
    assert {name: one["asked"] for name, one in seen.items() if one["asked"]} == {}
    whole = {name: one for name, one in seen.items() if name not in REFUSED}
    for name, one in whole.items():
        assert any(path.endswith("config.json") for path in one["opened"]), name  # the hook records opened files
        assert (name, one["unlisted"], one["unnoticed"], one["same again"]) == (name, [], [], True)
        assert (name, one["bare"], one["spoilt"]) == (name, one["whole"], one["whole"])
    assert len({json.dumps(one["whole"]) for one in whole.values()}) > 5  # the layouts give different replies
