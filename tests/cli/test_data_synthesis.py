"""`sftchat data filter`, `best-of` and `distill`: results, messages, and how an interrupted run resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy
import pytest

from sftchat import EngineError, Example, Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import Engine, Request
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine
from sftchat.types import SamplingParams


def right(example: Example, reply: Reply) -> Score:
    return Score({"n": 1, "right": int(reply.text == example.gold)}, reply.text)


TASK = Task(
    "quiz", "", lambda n, seed: (), right, (rate("accuracy", "right"),), validate_row=lambda example: ["odd"] if example.gold == "?" else []
)


@dataclass
class Desk:
    """Folder with prompts and a scripted model that records its requests."""

    says: Callable[[Request], Any]
    identity: str = "ab"
    asked: list[Request] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, *words: str) -> int:
        def open_engine(model: str, **options: Any) -> Engine:
            self.options = options
            engine = ScriptedEngine(self.says, name=model)
            engine.requests = self.asked
            return engine

        registry = Registry(pluggy.PluginManager("sftchat"), {"quiz": TASK})
        return main(["data", *words], obj=Session(open_engine, registry, lambda model, **options: self.identity))


def number(request: Request) -> int:
    return int(request.messages[-1]["content"])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Three prompts: the model always solves 1, solves 2 with every second seed, and 3 never."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sftchat", "data", "…"])
    rows = [{"id": f"i{n}", "messages": [{"role": "user", "content": str(n)}], "gold": "yes"} for n in (1, 2, 3)]
    Path("p").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Desk(
        lambda request: "yes" if number(request) == 1 or (number(request) == 2 and request.sampling.seed % 2) else f"no {number(request)}"
    )


def rows(name: str) -> list[Any]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


BEST = ("best-of", "quiz", "m", "--prompts", "p", "-k", "2", "-o", "out")


def test_best_of_writes_rows_pairs_and_provenance(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.run(*BEST, "--pairs", "pairs", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"prompts": 3, "kept": 2, "solved": 0, "nothing good": 1, "unanswered": 0, "pairs": 1}
    assert err == "wrote 2 rows to out of 3 prompts: 2 kept, 1 nothing good; best and worst differ in 1\n"
    assert rows("out") == [
        {
            "id": f"i{n}",
            "messages": [{"role": "user", "content": str(n)}, {"role": "assistant", "content": "yes"}],
            "best_of": {"reward": 1.0, "mean": mean, "k": 2},
        }
        for n, mean in ((1, 1.0), (2, 0.5))
    ]
    assert rows("pairs") == [
        {
            "id": "i2",
            "prompt": [{"role": "user", "content": "2"}],
            "chosen": [{"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "assistant", "content": "no 2"}],
            "score_chosen": 1.0,
            "score_rejected": 0.0,
        }
    ]
    assert [(request.messages[-1]["content"], request.sampling.seed) for request in desk.asked] == [(p, s) for p in "123" for s in (0, 1)]
    assert all("yes" not in turn["content"] for request in desk.asked for turn in request.messages)
    told = json.loads(Path("out.provenance.json").read_text())
    assert told["made_by"] == "data best-of"
    assert [source["file"] for source in told["inputs"]] == ["p", "out.samples.jsonl"]
    assert {name: told["settings"][name] for name in ("model", "identity", "temperature", "task", "metric", "k")} == {
        "model": "m",
        "identity": "ab",
        "temperature": 0.8,
        "task": "quiz",
        "metric": "accuracy",
        "k": 2,
    }
    assert sorted(path.name for path in Path().iterdir()) == [
        "out",
        "out.provenance.json",
        "out.samples.jsonl",
        "p",
        "pairs",
        "pairs.provenance.json",
    ]


def test_samples_are_scored_again_without_generating_them_again(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.run(*BEST)
    before = len(desk.asked)
    assert desk.run(*BEST, "--score-only", "--overwrite", "--solved-threshold", "0.9") == 0
    assert [row["id"] for row in rows("out")] == ["i2"]
    assert capsys.readouterr().err.endswith(
        "wrote 1 row to out of 3 prompts: 1 kept, 1 solved, 1 nothing good; best and worst differ in 1\n"
    )
    assert desk.run(*BEST, "--overwrite", "-q") == 0
    assert len(desk.asked) == before
    assert desk.run(*BEST, "-k", "3", "--overwrite", "-q") == 0
    assert [request.sampling.seed for request in desk.asked[before:]] == [2, 2, 2]


def test_score_only_needs_every_sample(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.run(*BEST, "--score-only") == 2
    desk.run(*BEST, "-q")
    assert desk.run(*BEST, "-k", "4", "--score-only", "--overwrite") == 3
    assert capsys.readouterr().err == (
        "sftchat: error: there are no samples in 'out.samples.jsonl'; leave --score-only out to make them, or give --samples FILE\n"
        "sftchat: error: out.samples.jsonl lacks 6 of the samples; leave --score-only out to ask for those\n"
    )


def test_after_a_crash_only_missing_replies_are_generated(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    living = desk.says

    def dying(request: Request) -> Any:
        return EngineError("server gone") if number(request) == 3 else living(request)

    desk.says = dying
    assert desk.run(*BEST) == 3
    assert capsys.readouterr().err == "sftchat: error: server gone\n"
    assert sorted(path.name for path in Path().iterdir()) == ["out.samples.jsonl", "p"]
    desk.says = living
    desk.asked.clear()
    assert desk.run(*BEST) == 0
    assert [number(request) for request in desk.asked] == [3, 3]
    assert capsys.readouterr().err.startswith("4 replies in out.samples.jsonl; 2 to go\n")


def test_a_single_failed_request_drops_its_prompt_and_sets_the_exit_code(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    living = desk.says
    desk.says = lambda request: Reply("", "error") if number(request) == 2 else living(request)
    assert desk.run(*BEST) == 3
    assert capsys.readouterr().err == (
        "wrote 1 row to out of 3 prompts: 1 kept, 1 nothing good, 1 unanswered; best and worst differ in 0\n"
        "sftchat: error: 2 requests had no answer ('scripted'); the same command with --overwrite asks those again\n"
    )


def test_replies_of_other_weights_are_refused(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.run(*BEST, "-q")
    desk.identity = "cd"
    assert desk.run(*BEST, "--overwrite") == 2
    assert capsys.readouterr().err == (
        'sftchat: error: out.samples.jsonl holds replies made with identity "ab", not "cd"; '
        "give --fresh to make them again, or --samples another file\n"
    )
    assert desk.run(*BEST, "--overwrite", "--fresh", "-q") == 0
    assert rows("out.samples.jsonl")[0]["identity"] == "cd"


def test_best_of_refuses_impossible_settings_before_it_generates(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    Path("prompts").write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    for words, message in (
        (("--temperature", "0"), "temperature 0 gives the same reply 2 times; give --temperature above 0, or -k 1"),
        (("--score-only", "--fresh"), "--fresh makes replies again and --score-only makes none; give one of them"),
        (("--pairs", "out"), "two of the outputs are one file; give each a name of its own"),
        (("-o", "-"), "the output is a file with samples and provenance beside it; give a name, not -"),
        (
            ("--prompts", "prompts"),
            "prompts:1: the row has no gold reply to score samples against; add one, or use 'sftchat data distill'",
        ),
        (("-o", "p"), "output 'p' exists; give --overwrite to replace it, or another name"),
    ):
        assert desk.run(*BEST, *words) == 2
        assert capsys.readouterr().err == f"sftchat: error: {message}\n"
    assert desk.asked == []


def test_when_no_prompt_gives_a_row_nothing_is_written(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.says = lambda request: "no"
    assert desk.run(*BEST) == 2
    assert capsys.readouterr().err == (
        "sftchat: error: p: no prompt of 3 gave a row: 0 kept, 3 nothing good; best and worst differ in 0; nothing is written but out.samples.jsonl\n"
    )
    assert not Path("out").exists()


def test_pairs_are_rows_that_trl_renders(desk: Desk, tiny_checkpoint: Path) -> None:
    from transformers import AutoTokenizer
    from trl.data_utils import apply_chat_template, is_conversational

    from sftchat.templates.named import TEMPLATES

    desk.run(*BEST, "--pairs", "pairs", "-q")
    (pair,) = rows("pairs")
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.chat_template = TEMPLATES["chatml"].source
    assert is_conversational(pair)
    rendered = apply_chat_template({key: pair[key] for key in ("prompt", "chosen", "rejected")}, tokenizer)
    assert rendered == {
        "prompt": "<|im_start|>user\n2<|im_end|>\n<|im_start|>assistant\n",
        "chosen": "yes<|im_end|>\n",
        "rejected": "no 2<|im_end|>\n",
    }


TAUGHT = ("distill", "m", "--prompts", "p", "-o", "out")


def test_distill_writes_the_replies_of_the_teacher(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    says = {1: "<think>hm</think>\neins", 2: Reply("zw", "length"), 3: "<think>three"}
    desk.says = lambda request: says[number(request)]
    assert desk.run(*TAUGHT, "--strip-thinking", "--system", "Sprich deutsch.") == 0
    assert capsys.readouterr().err == "wrote 1 row to out of 3 prompts: 1 kept, 1 cut-off, 1 empty\n"
    assert rows("out") == [{"id": "i1", "messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "eins"}]}]
    assert [request.messages[0]["content"] for request in desk.asked] == ["Sprich deutsch."] * 3
    assert desk.asked[0].sampling == SamplingParams(max_new_tokens=1024)
    assert desk.options["concurrency"] == 16
    told = json.loads(Path("out.provenance.json").read_text())
    assert told["counts"] == {"prompts": 3, "kept": 1, "cut-off": 1, "empty": 1, "unanswered": 0}
    assert (told["settings"]["system"], told["settings"]["strip_thinking"]) == ("Sprich deutsch.", True)


@pytest.mark.parametrize("words", [BEST, ("distill", "m", "--prompts", "p", "-o", "out")])
def test_generation_may_use_eight_bit_weights(words: tuple[str, ...], desk: Desk) -> None:
    assert desk.run(*words, "--overwrite") == 0
    assert desk.options["quantize"] is None
    assert desk.run(*words, "--overwrite", "--fresh", "--quantize", "int8") == 0
    assert desk.options["quantize"] == "int8"


def test_distill_needs_prompts_and_no_gold(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    Path("p").write_text('{"messages": [{"role": "user", "content": "1"}]}\n{"text": "a"}\n')
    assert desk.run(*TAUGHT) == 2
    assert capsys.readouterr().err == "sftchat: error: p:2: the row is a text without a prompt to be answered\n"
    assert desk.run(*TAUGHT, "--limit", "1", "-q") == 0
    assert len(rows("out")) == 1


PROGRAM = """
import sys, time
import pluggy
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine

log = open("asked", "a")

def answer(request):
    time.sleep(0.005)
    print(request.messages[-1]["content"], file=log, flush=True)
    return "yes"

session = Session(lambda model, **options: ScriptedEngine(answer, name=model), Registry(pluggy.PluginManager("sftchat")))
sys.exit(main(["data", "distill", "m", "--prompts", "many", "-o", "out", "-q"], obj=session))
"""


def test_a_killed_run_continues_where_it_was_killed(desk: Desk) -> None:
    Path("many").write_text("".join(json.dumps({"prompt": str(n), "completion": "?"}) + "\n" for n in range(200)))
    Path("asked").touch()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM])
    deadline = time.monotonic() + 120
    while len(Path("asked").read_text().split()) < 40 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not Path("out").exists()
    assert subprocess.run([sys.executable, "-c", PROGRAM], check=False).returncode == 0
    assert len(rows("out")) == 200
    asked = Path("asked").read_text().split()
    assert set(asked) == set(map(str, range(200)))
    assert len(asked) <= 201  # the interrupted one is generated again


def test_filter_reports_how_many_rows_were_removed_and_why(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    Path("f").write_text(
        "".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in (("1", "yes"), ("a", "?"), ("1", "yes"), ("x" * 50, "no")))
    )
    assert desk.run("filter", "f", "out", "--task", "quiz", "--max-chars", "40", "--removed", "gone", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"rows": 4, "kept": 1, "task": 1, "duplicate": 1, "length": 1}
    assert err == (
        "kept 1 of 4 rows in out\n"
        "  1 task, first at line 2: odd\n"
        "  1 duplicate, first at line 3: the same row as line 1\n"
        "  1 length, first at line 4: 52 characters, more than 40\n"
    )
    assert rows("out") == [{"prompt": "1", "completion": "yes"}]
    assert rows("gone")[0] == {"source": "f:2", "reason": "task", "message": "odd", "row": {"prompt": "a", "completion": "?"}}
    assert [row["reason"] for row in rows("gone")] == ["task", "duplicate", "length"]
    told = json.loads(Path("out.provenance.json").read_text())
    assert (told["made_by"], told["counts"], told["settings"]["max_chars"]) == ("data filter", json.loads(out), 40)


def test_filter_uses_the_scores_of_samples(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.run(*BEST, "-q")
    words = ("filter", "p", "hard", "--task", "quiz", "--samples", "out.samples.jsonl")
    assert desk.run(*words, "--max-score", "0.9", "--min-score", "0.1") == 0
    assert [row["id"] for row in rows("hard")] == ["i2"]
    assert capsys.readouterr().err == "kept 1 of 3 rows in hard\n  2 score, first at line 1: score 1.000, above 0.9\n"
    assert desk.run("filter", "p", "own", "--task", "quiz", "--min-score", "1", "-q") == 0
    assert len(rows("own")) == 3


def test_filter_refuses_impossible_settings(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (("p", "-"), "filter reads IN twice and writes a sidecar beside OUT; give files"),
        (("p", "out", "--min-score", "1"), "--min-score needs --task, which scores"),
        (("p", "out", "--samples", "s"), "--samples is what --min-score and --max-score go by; give one of them"),
        (
            ("p", "out", "--task", "quiz", "--min-score", "1", "--max-score", "0.5"),
            "--min-score is 1 and --max-score 0.5: no row could stay",
        ),
        (
            ("p", "out", "--task", "quiz", "--min-score", "1", "--samples", "s"),
            "--samples 's' is no file; 'sftchat data best-of' writes one beside its output",
        ),
        (("p", "out", "--min-chars", "100"), "p: no row is left of 3: 3 length; nothing is written"),
    ):
        assert desk.run("filter", *words) == 2
        assert capsys.readouterr().err == f"sftchat: error: {message}\n"
    assert [path.name for path in Path().iterdir()] == ["p"]
