"""chat, ask, eval, inspect and train with a MODEL behind a real server on loopback that misbehaves on purpose."""

from __future__ import annotations

import io
import json
import sys
import threading
from pathlib import Path

import pluggy
import pytest

from sftchat import Reply, Score, Task, hookspecs, rate
from sftchat.cli import main
from sftchat.cli.shared import Session
from sftchat.engines.base import collect
from sftchat.engines.endpoint.engine import EndpointEngine
from sftchat.engines.endpoint.opening import open_endpoint
from sftchat.engines.endpoint.retries import Retries
from sftchat.errors import EngineError
from sftchat.plugins import Registry
from tests.engines.endpoint_kit import Script, answer, ask, delta, loopback, reply, stream

SLOW_DOWN = answer(429, json.dumps({"error": {"message": "slow down"}}), retry_after="0")


async def at_once(seconds: float) -> None:
    pass


def connect(url: str, timeout: float = 30.0) -> EndpointEngine:
    return open_endpoint(url, timeout=timeout, concurrency=1, retries=Retries(sleep=at_once))


def outcomes(*scripts: Script, timeout: float = 30.0, requests: int = 1) -> list[Reply | str]:
    with loopback(scripts) as server:
        found = collect(connect(server.url, timeout), [ask(id=str(n)) for n in range(requests)])
        return [str(it) if isinstance(it, EngineError) else it for _, it in found]


FINE = Reply("fine", "stop", 5, 3)


@pytest.mark.parametrize(
    "trouble",
    [SLOW_DOWN, answer(500, "oops", "text/plain"), answer(200, "{", "application/json"), stream(delta(""), whole=False), stream("data: {\n\n")],
    ids=["429", "500", "half a JSON", "cut before any text", "half an event"],
)  # fmt: skip
def test_a_request_survives_a_server_that_stumbles(trouble: Script) -> None:
    assert outcomes(trouble, trouble, stream(reply())) == [FINE]


def test_a_reply_cut_by_the_network_is_a_failure_and_the_next_one_is_not() -> None:
    first, second = outcomes(stream(delta("fi"), whole=False), stream(reply()), requests=2)

    assert isinstance(first, str)
    assert first.startswith("the connection broke: ")
    assert second == FINE


def test_a_server_that_falls_silent_is_left() -> None:
    pause = threading.Event()
    try:
        assert outcomes(stream(delta("fi"), pause=pause), timeout=0.2) == ["nothing came for 0.2 s; --timeout allows more"]
    finally:
        pause.set()


def test_the_server_notices_that_nobody_listens_any_more() -> None:
    gone = threading.Event()
    with loopback([stream(delta("fi"), gone=gone)]) as server:
        chunks = connect(server.url).generate([ask()])
        assert next(chunks).text == "fi"
        chunks.close()  # type: ignore[attr-defined]

        assert gone.wait(10)


def test_a_server_that_goes_away_ends_the_evaluation() -> None:
    with loopback([]) as server:
        engine = connect(server.url)

    with pytest.raises(
        EngineError, match=r"answers no more: no connection \(.*\); check that it still runs and that the address is right \(6 att"
    ):
        list(engine.generate([ask()]))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    gold = tmp_path / "gold.jsonl"
    rows = [{"id": f"i{n}", "messages": [{"role": "user", "content": f"question {n}"}], "gold": "fine"} for n in range(4)]
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    manager = pluggy.PluginManager("sftchat")
    manager.add_hookspecs(hookspecs)
    task = Task(
        "quiz", "a quiz", lambda n, seed: (), lambda example, reply: Score({"n": 1, "right": int(reply.text == example.gold)}),
        (rate("accuracy", "right"),), evalsets={"gold": gold},
    )  # fmt: skip
    return Session(given_registry=Registry(manager, {"quiz": task}))


def test_ask_streams_a_reply(session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with loopback([stream(reply("你好")), stream(reply("你好"))]) as server:
        assert main(["ask", server.url, "谁？"], obj=session) == 0
        assert capsys.readouterr() == ("你好\n", "")
        assert main(["ask", f"{server.url}#small", "谁？", "--json"], obj=session) == 0
        assert json.loads(capsys.readouterr().out) == {
            "reply": "你好", "finish_reason": "stop", "prompt_tokens": 5, "completion_tokens": 3, "model": f"{server.url}#small",
        }  # fmt: skip
        assert server.authorized == ["Bearer sk-secret"] * 2


def test_chat_through_a_pipe_has_one_reply_a_line(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    with loopback([stream(reply("1")), stream(reply("2"))]) as server:
        assert main(["chat", server.url], obj=session) == 0
        assert [message["content"] for message in server.asked[1]["messages"]] == ["one", "1", "two"]
    assert capsys.readouterr().out == "1\n2\n"


def test_eval_scores_a_served_model(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    with loopback([stream(reply("fine" if n else "bad")) for n in range(4)]) as server:
        assert main(["eval", server.url, "--concurrency", "1", "--timeout", "9", "--json"], obj=session) == 0

    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert [(metric["name"], metric["value"]) for metric in result["metrics"]] == [("accuracy", 0.75)]


def test_items_that_the_server_did_not_answer_are_no_low_scores(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, and a floor that the answered items meet is not called missed."""
    too_long = answer(400, json.dumps({"error": {"message": "the prompt is too long"}}))
    with loopback([too_long, *[stream(reply())] * 3]) as server:
        assert main(["eval", server.url, "--concurrency", "1", "--quiet", "--min", "accuracy=1"], obj=session) == 3

    out, err = capsys.readouterr()
    assert "HTTP 400: the prompt is too long" in out + err


def test_inspect_shows_what_a_server_has(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    with loopback([]) as server:
        assert main(["inspect", server.url], obj=session) == 0
        assert capsys.readouterr() == (f"server  {server.url}\nmodel   small (from /models/small, context 512)\n", "")
        assert main(["inspect", f"{server.url}#small", "--json"], obj=session) == 0
        assert json.loads(capsys.readouterr().out)["models"] == [{"id": "small", "max_model_len": 512, "root": "/models/small"}]
        assert main(["inspect", f"{server.url}#big"], obj=session) == 2
        assert capsys.readouterr().err == f"sftchat: error: unknown model 'big' (available: small) at {server.url}\n"


def test_a_served_model_cannot_be_trained(session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')

    assert main(["train", "quiz", "--model", "http://h/v1", "--data", str(rows), "-o", str(tmp_path / "run")], obj=session) == 2
    assert capsys.readouterr().err == "sftchat: error: model 'http://h/v1' is served by engine 'http' and cannot be trained here\n"
