"""The endpoint engine with a real server: ``transformers serve`` with the embedded model, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest

from sftchat.cli import main
from sftchat.engine import Request, collect
from sftchat.errors import UsageError
from sftchat.inference.open import load_engine
from sftchat.models.reference import embedded_folder
from sftchat.templates.named import TEMPLATES
from sftchat.types import Message, Reply, SamplingParams

MISSING = [name for name in ("fastapi", "openai", "uvicorn") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"'transformers serve' needs {', '.join(MISSING)}: pip install 'transformers[serving]'"),
]

QUESTIONS = ["你是谁？", "who are you?", "从以下小说内容中提取人物关系:\n韩立拜墨大夫为师。", "What is the sea?", "讲一个故事。"]
START_SECONDS = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the embedded model with its template, so that the server and our engine render the same."""
    folder = tmp_path_factory.mktemp("served") / "nano"
    shutil.copytree(embedded_folder(), folder)
    (folder / "chat_template.jinja").write_text(TEMPLATES["chatml"].source, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return a MODEL of the server, which lists no models because the Hub's cache is empty."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(folder)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("hub"))}
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with log.open("w") as output, subprocess.Popen([*program, *options], stdout=output, stderr=output, env=environment) as server:
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}/v1#{folder}"
        finally:
            server.terminate()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            if httpx2.get(url).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"no answer from {url}: {log.read_text()}")


def requests() -> list[Request]:
    return [Request(text, (Message(role="user", content=text),), sampling=SamplingParams(max_new_tokens=32)) for text in QUESTIONS]


def replies(model: str) -> dict[str, Reply]:
    with closing(load_engine(model, {}, concurrency=4)) as engine:
        found = dict(collect(engine, requests()))
    assert [it for it in found.values() if not isinstance(it, Reply)] == []
    return {id: it for id, it in found.items() if isinstance(it, Reply)}


def test_greedy_replies_are_those_of_our_own_engine(address: str, folder: Path) -> None:
    served, ours = replies(address), replies(str(folder))

    for question in QUESTIONS:
        # the server loses the bytes of a character that the token limit cut (huggingface/transformers' DecodeStream has no flush)
        assert served[question].text == ours[question].text.rstrip("�")
        assert served[question].prompt_tokens == ours[question].prompt_tokens
        assert served[question].finish_reason == ours[question].finish_reason


def test_a_name_that_the_server_does_not_have_is_refused_at_once(address: str) -> None:
    with pytest.raises(UsageError, match=r"no model 'other' at http://127.0.0.1:\d+/v1: HTTP 400: Server is pinned to"):
        load_engine(address.partition("#")[0] + "#other", {})


def test_items_are_scored_and_questions_answered(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["eval", address, "--task", "general", "--limit", "4", "--quiet", "-o", str(tmp_path / "eval")])

    written = [json.loads(line) for line in (tmp_path / "eval" / "replies.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (code, [row["finish_reason"] in ("stop", "length") for row in written]) == (0, [True] * 4)
    capsys.readouterr()
    assert main(["ask", address, QUESTIONS[0], "--max-new-tokens", "8"]) == 0
    assert capsys.readouterr().out.strip() != ""
