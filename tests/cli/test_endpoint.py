"""chat, ask, eval, inspect and train with a MODEL behind a real loopback server that misbehaves on purpose."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import warnings
from pathlib import Path
from urllib.parse import quote

import pluggy
import pytest

from sftchat import Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import collect
from sftchat.errors import EngineError, SftchatWarning
from sftchat.inference.openai.engine import EndpointEngine, open_endpoint
from sftchat.inference.openai.limits import Retries
from sftchat.plugins import spec as hookspecs
from sftchat.plugins.manager import Registry
from tests.inference.endpoint_kit import DONE, USAGE, Script, answer, ask, bomb, delta, end, head, loopback, raw, reply, stream

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
def test_a_request_survives_temporary_server_errors(trouble: Script) -> None:
    assert outcomes(trouble, trouble, stream(reply())) == [FINE]


def test_a_reply_cut_by_the_network_is_a_failure_and_the_next_one_succeeds() -> None:
    first, second = outcomes(stream(delta("fi"), whole=False), stream(reply()), requests=2)

    assert isinstance(first, str)
    assert first.startswith("the connection broke: ")
    assert second == FINE


def test_a_silent_server_is_given_up() -> None:
    pause = threading.Event()
    try:
        assert outcomes(stream(delta("fi"), pause=pause), timeout=0.2) == ["nothing came for 0.2 s; --timeout allows more"]
    finally:
        pause.set()


def test_the_server_notices_a_disconnected_client() -> None:
    gone = threading.Event()
    with loopback([stream(delta("fi"), gone=gone)]) as server:
        chunks = connect(server.url).generate([ask()])
        assert next(chunks).text == "fi"
        chunks.close()  # type: ignore[attr-defined]

        assert gone.wait(10)


def test_a_server_that_disappears_ends_the_evaluation() -> None:
    with loopback([]) as server:
        engine = connect(server.url)

    with pytest.raises(
        EngineError, match=r"no longer answers: no connection \(.*\); check that it still runs and that the address is right \(6 att"
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


THOUGHT = delta(None, reasoning="Lyon? ") + delta(None, reasoning="No.")
CUT = stream(THOUGHT + end("length") + USAGE + DONE)


@pytest.mark.parametrize("how", [[], ["--no-stream"]])
def test_ask_shows_thoughts_on_stderr_on_request(session: Session, capsys: pytest.CaptureFixture[str], how: list[str]) -> None:
    with loopback([stream(THOUGHT + reply("Paris"))] * 2) as server:
        assert main(["ask", server.url, "?", *how], obj=session) == 0
        assert capsys.readouterr() == ("Paris\n", "")
        assert main(["ask", server.url, "?", "--show-thinking", *how], obj=session) == 0
        assert capsys.readouterr() == ("Paris\n", "Lyon? No.\n")


def test_a_reply_of_thoughts_only_is_cut_and_not_an_empty_answer(
    session: Session, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = (
        "the reply was cut while thinking, at 3 tokens; --max-new-tokens N allows more, "
        "--template-argument enable_thinking=false asks many models not to think"
    )
    questions = tmp_path / "q.txt"
    questions.write_text("one\ntwo\n")
    with loopback([CUT, CUT, CUT, stream(reply("fine"))]) as server:
        assert main(["ask", server.url, "?"], obj=session) == 3
        assert capsys.readouterr() == ("\n", f"sftchat: error: {words}\n")
        assert main(["ask", server.url, "?", "--json"], obj=session) == 3
        assert json.loads(capsys.readouterr().out) == {
            "reply": "", "finish_reason": "length", "prompt_tokens": 5, "completion_tokens": 3, "thoughts": "Lyon? No.",
            "model": server.url,
        }  # fmt: skip
        assert main(["ask", server.url, "--questions", str(questions), "--concurrency", "1"], obj=session) == 3
        assert capsys.readouterr() == ("fine\n", f"sftchat: error: question '1' was not answered: {words}\n")


def test_an_evaluation_counts_replies_that_were_cut_while_thinking(
    session: Session, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with loopback([CUT, *[stream(THOUGHT + reply())] * 3]) as server:
        assert main(["eval", server.url, "--task", "quiz", "--concurrency", "1", "-o", str(tmp_path / "out")], obj=session) == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["results"][0]
    rows = [json.loads(line) for line in (tmp_path / "out" / found["replies"]).read_text(encoding="utf-8").splitlines()]

    assert "1 truncated, 1 cut while thinking" in capsys.readouterr().out
    assert (found["n"], found["truncated"], found["cut_thinking"]) == (4, 1, 1)
    assert [(row["reply"], row["thoughts"]) for row in rows] == [("", "Lyon? No."), *[("fine", "Lyon? No.")] * 3]


def test_a_chat_sends_no_thoughts_back_and_reports_a_reply_of_thoughts_only(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    with loopback([stream(THOUGHT + reply("1")), CUT]) as server:
        assert main(["chat", server.url], obj=session) == 0
        assert [message["content"] for message in server.asked[1]["messages"]] == ["one", "1", "two"]
    assert capsys.readouterr() == ("1\n\n", "cut while thinking, at 3 tokens; '/set max_new_tokens N' allows more\n")


def test_template_arguments_and_further_parameters_reach_a_server_from_the_command_line(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback([stream(reply())]) as server:
        more = ["--template-argument", "enable_thinking=false", "--extra-body", '{"min_p": 0.1}']
        assert main(["ask", server.url, "?", *more], obj=session) == 0
        assert (server.asked[0]["chat_template_kwargs"], server.asked[0]["min_p"]) == ({"enable_thinking": False}, 0.1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{", "is no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[1]", """must be a JSON object, such as '{"chat_template_kwargs": {"enable_thinking": false}}'"""),
        ('{"messages": []}', "'messages' is set by the program; leave it out"),
    ],
)
def test_invalid_further_parameters_are_refused(session: Session, capsys: pytest.CaptureFixture[str], given: str, words: str) -> None:
    assert main(["ask", "http://127.0.0.1:9/v1", "?", "--extra-body", given], obj=session) == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("how", "words"), [(["distill"], "4 unanswered"), (["best-of", "quiz"], "0 kept, 4 unanswered; best and worst differ in 0")]
)
def test_synthesis_without_replies_reports_the_servers_reason(
    session: Session, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = answer(400, json.dumps({"error": {"message": "the prompt is too long"}}))
    with loopback([refused] * 16) as server:
        assert main(["data", *how, server.url, "--prompts", "gold.jsonl", "-o", "out.jsonl"], obj=session) == 3
    reason = "'HTTP 400: the prompt is too long'"

    assert capsys.readouterr().err.splitlines()[-1] == (
        f"sftchat: error: no prompt of 4 gave a row: {words} ({reason}); nothing is written"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gold.jsonl"]


@pytest.mark.parametrize(("more", "text"), [([], "<think>\nLyon? No.\n</think>\n\nParis"), (["--strip-thinking"], "Paris")])
def test_distilled_rows_have_thoughts_that_a_server_sends_separately(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.jsonl").write_text('{"messages": [{"role": "user", "content": "?"}]}\n')
    with loopback([stream(THOUGHT + reply("Paris"))]) as server:
        assert main(["data", "distill", server.url, "--prompts", "one.jsonl", "-o", "out.jsonl", *more], obj=session) == 0
    first = Path("out.jsonl").read_text(encoding="utf-8")

    assert json.loads(first)["messages"][-1] == {"role": "assistant", "content": text}


def test_a_refusal_is_shown_as_the_reply_and_marked(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    refused = stream(delta(None, refusal="I can't") + end() + DONE)
    with loopback([refused, refused]) as server:
        assert main(["ask", server.url, "?"], obj=session) == 0
        assert capsys.readouterr() == ("I can't\n", "sftchat: the server marks the reply as a refusal\n")
        assert main(["ask", server.url, "?", "--json"], obj=session) == 0
        assert json.loads(capsys.readouterr().out)["refused"] is True


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


def test_items_without_a_reply_of_the_server_are_not_low_scores(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3; a floor that the answered items meet is not reported as missed."""
    too_long = answer(400, json.dumps({"error": {"message": "the prompt is too long"}}))
    with loopback([too_long, *[stream(reply())] * 3]) as server:
        assert main(["eval", server.url, "--concurrency", "1", "--quiet", "--min", "accuracy=1"], obj=session) == 3

    out, err = capsys.readouterr()
    assert "HTTP 400: the prompt is too long" in out + err


def test_inspect_shows_the_models_of_a_server(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
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


FLOOD = raw(head(), delta("so ").encode())
PINGS = raw(head() + delta("so far"), b": ping\n\n", 0.05)


def test_ask_cuts_an_endless_reply(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        loopback([FLOOD, FLOOD]) as server,
        pytest.warns(SftchatWarning, match="did not stop after max_tokens 9; replies of model 'small' are cut"),
    ):
        assert main(["ask", server.url, "hi", "--max-new-tokens", "9", "--json"], obj=session) == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["reply"], found["finish_reason"]) == ("so " * 100, "length")


def test_ask_ends_at_the_time_limit_of_a_request_and_has_shown_the_text_so_far(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback([PINGS]) as server:
        assert main(["ask", server.url, "hi", "--request-timeout", "1"], obj=session) == 3

    out, err = capsys.readouterr()
    assert (out, err) == ("so far", "sftchat: error: the request took longer than 1 s; --request-timeout allows more\n")


def test_eval_continues_after_an_item_that_took_too_long(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    with loopback([stream(reply()), PINGS, stream(reply()), stream(reply())]) as server:
        assert main(["eval", server.url, "--concurrency", "1", "--request-timeout", "1", "--json"], obj=session) == 3

    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert [failure["error"] for failure in result["failed"]] == ["the request took longer than 1 s; --request-timeout allows more"]
    assert [(metric["name"], metric["value"]) for metric in result["metrics"]] == [("accuracy", 1.0)]


def test_eval_cuts_endless_replies_and_warns_once(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        loopback([FLOOD, FLOOD, stream(reply()), stream(reply())]) as server,
        pytest.warns(SftchatWarning, match="replies of model 'small' are cut") as caught,
    ):
        assert main(["eval", server.url, "--concurrency", "1", "--json"], obj=session) == 0

    assert len(caught) == 1
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert [(metric["name"], metric["value"]) for metric in result["metrics"]] == [("accuracy", 0.5)]


def test_chat_shows_the_text_so_far_and_continues(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    with loopback([PINGS, stream(reply("2"))]) as server:
        main(["chat", server.url, "--request-timeout", "1"], obj=session)

    out, err = capsys.readouterr()
    assert out.startswith("so far")
    assert "the request took longer than 1 s; --request-timeout allows more" in err


def test_chat_cuts_an_endless_reply(session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n"))
    with loopback([FLOOD]) as server, pytest.warns(SftchatWarning, match="replies of model 'small' are cut"):
        assert main(["chat", server.url, "--max-new-tokens", "9"], obj=session) == 0

    assert capsys.readouterr().out.split() == ["so"] * 100


def test_inspect_refuses_an_endless_list_of_models(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    with loopback([], bomb("application/json")) as server:
        assert main(["inspect", server.url], obj=session) == 3
        assert capsys.readouterr().err == (
            f"sftchat: error: the server at {server.url} does not list its models: the server sent more than 8,388,608 bytes\n"
        )


def test_a_key_that_the_server_repeats_is_neither_shown_nor_stored(
    session: Session, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Replies, an error and a list of models, in ask, inspect, eval with all its files, and chat with its sessions."""
    key = "sk-secret+1234"
    monkeypatch.setenv("SFTCHAT_API_KEY", key)
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n"))
    echo = stream(*map(delta, f"fine {key} {quote(key)}"), end())
    refusal = answer(400, json.dumps({"error": {"message": f"no model for {key}"}}))
    listing = answer(200, json.dumps({"data": [{"id": "small", "root": f"/{key}"}]}))
    with loopback([echo, echo, echo, echo, echo, refusal, echo, echo, echo, echo, echo, echo], listing) as server:
        main(["inspect", server.url], obj=session)
        main(["inspect", server.url, "--json"], obj=session)
        main(["ask", server.url, "hi"], obj=session)
        main(["ask", server.url, "hi", "--json"], obj=session)
        main(["eval", server.url, "--concurrency", "1", "-o", str(tmp_path / "report"), "--json"], obj=session)
        main(["eval", server.url, "--concurrency", "1", "--update-baseline", str(tmp_path / "baseline.jsonl")], obj=session)
        main(["chat", server.url], obj=session)
        assert server.authorized == [f"Bearer {key}"] * 11

    out, err = capfd.readouterr()
    home = Path(os.environ["HOME"])
    written = [path for folder in (tmp_path, home) for path in folder.rglob("*") if path.is_file()]
    forms = (key, quote(key))
    assert [form for form in forms if form in out + err] == []
    assert [path for path in written for form in forms if form.encode() in path.read_bytes()] == []
    baseline = [json.loads(line) for line in (tmp_path / "baseline.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["reply"] for row in baseline if "reply" in row] == ["fine *** ***"] * 4
    assert (tmp_path / "report").is_dir()


def test_a_refused_system_turn_is_put_into_the_user_turn_in_ask_eval_and_chat(
    session: Session, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = answer(400, json.dumps({"object": "error", "message": "System role not supported", "type": "BadRequestError", "code": 400}))
    gold = tmp_path / "system.jsonl"
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one"}]
    gold.write_text(json.dumps({"id": "a", "messages": turns, "gold": "fine"}) + "\n", encoding="utf-8")
    words = "takes no system turn; it is put before the user's first message"
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    fine = stream(reply())
    with loopback([refusal, fine, refusal, fine, refusal, fine, fine]) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(["ask", server.url, "one", "--system", "Be brief."], obj=session) == 0
        assert main(["eval", server.url, "--task", "quiz", "--evalset", str(gold)], obj=session) == 0
        assert "1.000" in capsys.readouterr().out
        assert main(["chat", server.url, "--system", "Be brief."], obj=session) == 0
        assert capsys.readouterr().out == "fine\nfine\n"
        sent = [[(turn["role"], turn["content"]) for turn in body["messages"]] for body in server.asked]
    refused, put = [("system", "Be brief."), ("user", "one")], [("user", "Be brief.\n\none")]
    assert sent == [refused, put] * 3 + [[*put, ("assistant", "fine"), ("user", "two")]]
    assert [words in str(warning.message) for warning in caught] == [True] * 3
