"""``scripts/bench_real.py``: the best of the rounds, goals, and a contestant that fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow  # importing the trainers takes seconds


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules ``bench_real`` and ``contestants``."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import bench_real
    import contestants

    return bench_real, contestants


@dataclass
class Speeds:
    """A backend whose requests take given numbers of seconds; the first of each two calls is the warm-up."""

    seconds: list[float]

    def stream(self, workload: Any) -> list[float]:
        return [1.0, 1.0 + self.seconds.pop(0)]

    def batch(self, workload: Any) -> float:
        return self.seconds.pop(0)


def opener(*seconds: float) -> Any:
    """Return a function that opens one backend again and again."""
    backend = Speeds(list(seconds))

    def open_backend() -> AbstractContextManager[Speeds]:
        return nullcontext(backend)

    return open_backend


def broken() -> AbstractContextManager[Speeds]:
    raise RuntimeError("no such library\nand more")


def test_the_best_round_counts_and_a_contestant_that_fails_is_reported(scripts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bench_real, contestants = scripts
    workload = bench_real.Workload(("hi",), ((1, 2),), (21,))
    measure = bench_real.Measure(
        "one reply", workload, bench_real.decoding_speed, lambda contestant, speed: f"{contestant.weight_bytes:g} bytes"
    )
    entrants = [
        contestants.Contestant("sftchat", "ours", "abc", 4, opener(9, 2, 9, 1)),
        contestants.Contestant("llama.cpp", "llama.cpp", "a", 1, opener(9, 2, 9, 4)),
        contestants.Contestant("broken llama.cpp", "llama.cpp", "a", 1, broken),
        contestants.Contestant("sftchat bfloat16", "ours", "a", 2, broken, "this CPU does not multiply bfloat16"),
        contestants.Contestant("of another measure", "harness", "c", 2, broken),
    ]

    assert bench_real.run_measure("a", measure, entrants, rounds=2) is False
    assert capsys.readouterr().out.splitlines() == [
        "",
        "| a: one reply | tokens/s | share of the machine |",
        "|---|---:|---:|",
        "| sftchat | 20.0 | 4 bytes |",
        "| llama.cpp | 10.0 | 1 bytes |",
        "| broken llama.cpp | – | skipped: RuntimeError: no such library and more |",
        "| sftchat bfloat16 | – | skipped: this CPU does not multiply bfloat16 |",
        "sftchat is 2.00 times llama.cpp (goal 1.3)",
    ]


@pytest.mark.parametrize(("seconds", "missed"), [(1.0, False), (2.0, True)])
def test_a_missed_goal_is_reported_for_the_best_of_each_group(scripts: Any, seconds: float, missed: bool) -> None:
    bench_real, contestants = scripts
    names = {"ours": "sftchat", "llama.cpp": "slow", "harness": "harness"}
    entrants = [contestants.Contestant(name, group, "c", 4, opener()) for group, name in names.items()]
    entrants.append(contestants.Contestant("fast", "llama.cpp", "c", 4, opener()))

    assert bench_real.judge("c", entrants, {"sftchat": 4 / seconds, "slow": 0.1, "fast": 1.0, "harness": 1.0}) is missed


class Events(BaseHTTPRequestHandler):
    """Answers as llama.cpp's server does, with the number of tokens that was asked for."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        events = [{"choices": [{"text": str(token), "finish_reason": None}]} for token in body["prompt"]]
        for event in [*events, {"choices": [], "usage": {"completion_tokens": body["max_tokens"]}}]:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    """URL of a server with the events of ``Events``."""
    with HTTPServer(("127.0.0.1", 0), Events) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_events_of_a_native_server_are_read_as_they_arrive(scripts: Any, address: str) -> None:
    _, contestants = scripts
    events: list[Any] = []

    error = contestants.complete_over_http(address, "", {"prompt": [7, 8], "max_tokens": 2}, lambda event: bool(events.append(event)))

    assert error == ""
    assert [event["choices"][0]["text"] for event in events[:-1]] == ["7", "8"]
    assert events[-1]["usage"] == {"completion_tokens": 2}


def test_a_reply_of_another_length_is_an_error(scripts: Any, address: str) -> None:
    bench_real, contestants = scripts
    server = contestants.LlamaCpp(lambda body, receive: contestants.complete_over_http(address, "", body, receive), 2)

    assert server.batch(bench_real.Workload(("a", "b"), ((1,), (2,)), (3, 4))) is None
    with pytest.raises(RuntimeError, match="a reply of 0 tokens instead of 3"):
        contestants.LlamaCpp(lambda body, receive: "", 1).stream(bench_real.Workload(("a",), ((1,),), (3,)))
