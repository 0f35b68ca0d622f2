"""The reply cache from the command line: ``sftchat eval`` twice, ``sftchat cache``."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy
import pytest

from sftchat import Example, Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import Engine, EngineType, Request
from sftchat.evaluation.ledger_file import ledger_path
from sftchat.evaluation.reply_cache import default_path
from sftchat.plugins import spec as hookspecs
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine
from tests.conftest import make_checkpoint

ROWS = [{"id": f"i{n}", "messages": [{"role": "user", "content": f"question {n}"}], "gold": f"answer {n}"} for n in range(8)]
GOOD, BAD = "aa" * 32, "bb" * 32


def judge(example: Example, reply: Reply) -> Score:
    right = reply.text == example.gold
    return Score({"n": 1, "right": int(right)}, reply.text, () if right else ("wrong",))


@dataclass
class Desk:
    """Program with models identified by their weights; records opened models and their numbers of requests."""

    registry: Registry
    capsys: pytest.CaptureFixture[str]
    answers: dict[str, Callable[[Request], Any]]
    identities: dict[str, str]
    opened: list[ScriptedEngine] = field(default_factory=list)

    def open(self, model: str, **options: Any) -> Engine:
        self.opened.append(ScriptedEngine(self.answers[model], name=model))
        return self.opened[-1]

    def identify(self, model: str, **options: Any) -> str:
        return self.identities.get(model, "")

    def run(self, *words: object) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        code = main([*map(str, words)], obj=Session(self.open, self.registry, self.identify))
        out, err = self.capsys.readouterr()
        return code, out, err

    @property
    def asked(self) -> list[tuple[str, int]]:
        """Return the models opened since the last call with their numbers of requests."""
        found = [(engine.name, len(engine.requests)) for engine in self.opened]
        self.opened.clear()
        return found


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    task = Task("quiz", "a quiz", lambda n, seed: (), judge, (rate("accuracy", "right"),), evalsets={"gold": gold})
    manager = pluggy.PluginManager("sftchat")
    manager.add_hookspecs(hookspecs)
    engines = {"s": EngineType("s", "scripted", lambda rest, options: ScriptedEngine([]))}

    def number(request: Request) -> int:
        return int(request.messages[-1]["content"].split()[1])

    def interrupted(request: Request) -> str:
        if number(request) == 5:
            raise KeyboardInterrupt
        return f"answer {number(request)}"

    answers: dict[str, Callable[[Request], Any]] = {
        "s:good": lambda request: f"answer {number(request)}",
        "s:bad": lambda request: "x",
        "s:flaky": lambda request: Reply("", "error") if number(request) == 2 else "x",
        "s:interrupted": interrupted,
    }
    return Desk(Registry(manager, {"quiz": task}, engines), capsys, answers, {"s:good": GOOD, "s:bad": BAD, "s:flaky": BAD})


def written(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_a_second_run_opens_no_model_and_writes_the_same_bytes(desk: Desk) -> None:
    first = desk.run("eval", "s:bad", "--baseline", "s:good", "-o", "one")
    assert desk.asked == [("s:good", 8), ("s:bad", 8)]

    second = desk.run("eval", "s:bad", "--baseline", "s:good", "-o", "two")

    assert desk.asked == []
    assert (first[0], second[0]) == (1, 1)
    assert written("one") == written("two")
    assert "s:good on gold.jsonl: 8 of 8, 8 cached\n" in second[2]
    assert "s:bad: 0 of 8 items without any error class, 8 tokens, 8 of 8 replies cached" in " ".join(second[1].split())
    assert "replies cached" not in first[1] + first[2]


def test_the_json_does_not_depend_on_the_cache(desk: Desk) -> None:
    assert desk.run("eval", "s:good", "--json", "--quiet") == desk.run("eval", "s:good", "--json", "--quiet")
    assert desk.asked == [("s:good", 8)]


def test_an_unchanged_model_against_itself_is_run_once_and_passes(desk: Desk) -> None:
    code, _, err = desk.run("eval", "s:good", "--baseline", "s:good", "--quiet")

    assert (code, desk.asked) == (0, [("s:good", 8)])
    assert err.endswith("p = 1, no item changed its counts\nverdict: pass\n")


def test_only_new_items_are_generated(desk: Desk) -> None:
    desk.run("eval", "s:good", "--limit", 6)
    _, out, err = desk.run("eval", "s:good")

    assert desk.asked == [("s:good", 6), ("s:good", 2)]
    assert "6 of 8 replies cached" in out
    assert "s:good on gold.jsonl: 8 of 8, 6 cached\n" in err


def test_other_weights_under_the_same_name_are_run_again(desk: Desk) -> None:
    desk.run("eval", "s:good")
    desk.identities["s:good"] = BAD
    desk.run("eval", "s:good")

    assert desk.asked == [("s:good", 8), ("s:good", 8)]


def test_another_seed_is_run_again(desk: Desk) -> None:
    desk.run("eval", "s:good")
    desk.run("eval", "s:good", "--seed", 1)

    assert desk.asked == [("s:good", 8), ("s:good", 8)]


def test_fresh_generates_again(desk: Desk) -> None:
    desk.run("eval", "s:good")
    out = desk.run("eval", "s:good", "--fresh")[1]

    assert desk.asked == [("s:good", 8), ("s:good", 8)]
    assert "replies cached" not in out


def test_a_failed_item_is_generated_again(desk: Desk) -> None:
    assert desk.run("eval", "s:flaky")[0] == 3
    desk.answers["s:flaky"] = desk.answers["s:bad"]
    assert desk.run("eval", "s:flaky")[0] == 0

    assert desk.asked == [("s:flaky", 8), ("s:flaky", 1)]


def test_a_model_without_an_identity_is_always_run(desk: Desk) -> None:
    del desk.identities["s:good"]
    desk.run("eval", "s:good")
    desk.run("eval", "s:good")

    assert desk.asked == [("s:good", 8), ("s:good", 8)]
    assert not default_path().exists()


def test_an_interrupted_evaluation_reports_cached_replies_and_continues_from_them(desk: Desk) -> None:
    desk.identities["s:interrupted"] = GOOD
    code, _, err = desk.run("eval", "s:interrupted", "-o", "out", "--quiet")
    assert (code, Path("out").exists()) == (130, False)
    assert err == f"5 replies kept in {default_path()}; the same command goes on from there\n\nsftchat: interrupted\n"

    desk.answers["s:interrupted"] = desk.answers["s:good"]
    assert desk.run("eval", "s:interrupted", "-o", "out")[0] == 0

    assert desk.asked == [("s:interrupted", 6), ("s:interrupted", 3)]


def test_an_interrupted_fresh_evaluation_continues_without_the_flag(desk: Desk) -> None:
    desk.identities["s:interrupted"] = GOOD

    err = desk.run("eval", "s:interrupted", "--fresh", "--quiet")[2]

    assert "; the same command without --fresh goes on from there\n" in err


def test_an_unusable_cache_is_reported_once_and_harmless(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("taken").write_bytes(b"")
    monkeypatch.setenv("SFTCHAT_CACHE_DIR", "taken/cache")
    desk.run("eval", "s:good", "-o", "one", "--quiet")
    code, out, err = desk.run("eval", "s:good", "-o", "two", "--quiet")

    assert (code, desk.asked, "8 of 8 items without any error class" in out) == (0, [("s:good", 8), ("s:good", 8)], True)
    assert err == (
        "sftchat: replies are not cached: cannot use 'taken/cache/replies.sqlite': not a directory; "
        "$SFTCHAT_CACHE_DIR chooses another folder, 'sftchat cache prune --all' empties this one\n"
        "sftchat: this evaluation is not recorded for 'sftchat history': cannot use 'taken/cache/ledger.sqlite': not a directory; "
        "$SFTCHAT_CACHE_DIR chooses another folder, 'sftchat cache prune --ledger --all' empties this one\n"
    )
    assert written("one") == written("two")


def test_the_cache_is_shown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTCHAT_CACHE_DIR", "cache")
    assert desk.run("cache") == (0, "no replies in cache/replies.sqlite\n", "")
    assert not Path("cache").exists()
    desk.run("eval", "s:good")
    desk.run("eval", "s:bad", "--limit", 3)

    code, out, err = desk.run("cache")
    shown = json.loads(desk.run("cache", "--json")[1])

    lines = out.split("\n")
    assert (code, err) == (0, "")
    assert lines[0].startswith("11 replies in cache/replies.sqlite, ")
    assert [(line.split()[0], line.split()[1], line.split()[-1]) for line in lines[1:-2]] == [
        ("b" * 12, "3", "s:bad"),
        ("a" * 12, "8", "s:good"),
    ]
    assert [(model["name"], model["identity"], model["replies"]) for model in shown["models"]] == [("s:bad", BAD, 3), ("s:good", GOOD, 8)]
    assert shown["bytes"] > 4096
    assert lines[-2].startswith("2 results for 'sftchat history' in cache/ledger.sqlite, ")
    assert (shown["ledger"]["path"], shown["ledger"]["results"], shown["ledger"]["bytes"] > 4096) == ("cache/ledger.sqlite", 2, True)


def test_results_of_the_ledger_are_deleted_only_when_asked_for(desk: Desk) -> None:
    desk.run("eval", "s:good")

    assert desk.run("cache", "prune", "--all")[1].startswith("8 replies deleted, ")
    assert desk.run("cache", "prune", "--ledger", "--older-than", "1")[1].startswith("0 results deleted, ")
    assert json.loads(desk.run("cache", "--json")[1])["ledger"]["results"] == 1
    assert desk.run("cache", "prune", "--ledger", "--all")[1].startswith("1 result deleted, ")
    assert json.loads(desk.run("cache", "--json")[1])["ledger"]["results"] == 0
    desk.run("eval", "s:good", "--no-ledger")
    assert json.loads(desk.run("cache", "--json")[1])["ledger"]["results"] == 0


def test_a_damaged_ledger_breaks_no_evaluation(desk: Desk) -> None:
    ledger_path().parent.mkdir(parents=True)
    ledger_path().write_bytes(b"no database" * 1000)

    code, out, err = desk.run("eval", "s:good", "--quiet")

    assert (code, "8 of 8 items without any error class" in out, err.count("\n")) == (0, True, 1)
    assert err.startswith("sftchat: this evaluation is not recorded for 'sftchat history': cannot use ")
    assert (desk.run("cache")[0], desk.run("cache", "prune", "--ledger", "--all")[0], desk.run("cache")[0]) == (3, 0, 0)


def test_a_variable_turns_the_ledger_off(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTCHAT_NO_LEDGER", "1")

    assert desk.run("eval", "s:good")[0] == 0
    assert not ledger_path().exists()


def test_one_model_is_pruned_and_then_everything(desk: Desk) -> None:
    desk.run("eval", "s:good")
    desk.run("eval", "s:bad")

    assert desk.run("cache", "prune", "--model", "bbb")[1].startswith("8 replies deleted, ")
    assert desk.run("cache", "prune", "--older-than", "1")[1].startswith("0 replies deleted, ")
    desk.run("eval", "s:good")
    assert desk.asked == [("s:good", 8), ("s:bad", 8)]
    assert desk.run("cache", "prune", "--all")[1].startswith("8 replies deleted, ")
    assert desk.run("cache", "--json")[1].count("identity") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say which replies to delete: give --older-than DAYS, --model IDENTITY, or --all"),
        (("--all", "--model", "a"), "--all deletes every reply; leave out --older-than and --model, or leave out --all"),
        (("--ledger",), "say which results to delete: give --older-than DAYS or --all"),
        (("--ledger", "--model", "a"), "--model chooses cached replies, and --ledger deletes results; leave one of them out"),
        (("--ledger", "--all", "--older-than", "1"), "--all deletes every result; leave out --older-than and --model, or leave out --all"),
        (("--model", "abc"), "no replies of a model 'abc'; 'sftchat cache' lists the identities"),
        (("--older-than", "-1"), "invalid value for '--older-than': -1.0 is not in the range x>=0; see 'sftchat cache prune --help'"),
    ],
)
def test_contradictory_pruning_options_are_refused_in_one_line(desk: Desk, words: tuple[str, ...], message: str) -> None:
    assert desk.run("cache", "prune", *words) == (2, "", f"sftchat: error: {message}\n")


def test_a_damaged_cache_is_an_error_of_one_line_until_it_is_cleared(desk: Desk) -> None:
    default_path().parent.mkdir(parents=True)
    default_path().write_bytes(b"no database" * 1000)

    code, _, err = desk.run("cache")

    assert (code, err.count("\n")) == (3, 1)
    assert err.endswith("'sftchat cache prune --all' empties this one\n")
    assert desk.run("cache", "prune", "--all") == (0, "0 replies deleted, 11.0 kB freed\n", "")
    assert desk.run("cache")[0] == 0


def test_help_has_an_example(desk: Desk) -> None:
    assert "sftchat cache prune --older-than 30" in desk.run("cache", "--help")[1]
    assert "sftchat cache prune --model 3f2a9c --older-than 7" in desk.run("cache", "prune", "--help")[1]


def test_one_changed_bit_of_real_weights_generates_again_and_the_same_weights_do_not(desk: Desk, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    program = Session(given_registry=desk.registry)

    def from_cache(*words: str) -> bool:
        assert main(["eval", "model", *words], obj=program) == 0
        return "8 of 8 replies cached" in desk.capsys.readouterr().out

    assert [from_cache(), from_cache(), from_cache("--dtype", "bfloat16"), from_cache("--template", "plain"), from_cache()] == [
        False,
        True,
        False,
        False,
        True,
    ]
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert [from_cache(), from_cache()] == [False, True]


@pytest.mark.slow
def test_a_baseline_identifies_a_checkpoint_and_an_evalset_by_their_bytes(desk: Desk, tmp_path: Path) -> None:
    """Other harnesses record the name of a local folder, which stays the same when its content changes."""
    model = make_checkpoint(tmp_path / "model")

    def header(baseline: str) -> dict[str, Any]:
        assert main(["eval", "model", "--update-baseline", baseline, "--quiet"], obj=Session(given_registry=desk.registry)) == 0
        found: dict[str, Any] = json.loads(Path(baseline).read_text(encoding="utf-8").split("\n")[0])
        return found

    before = header("before.jsonl")
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    after = header("after.jsonl")

    gold = hashlib.sha256(Path("gold.jsonl").read_bytes()).hexdigest()
    assert [(one["model"], one["evalsets"][0]["sha256"], len(one["identity"])) for one in (before, after)] == [("model", gold, 64)] * 2
    assert before["identity"] != after["identity"]


SECOND_RUN = """
import sys
from pathlib import Path
import pluggy
from sftchat import Score, Task, rate
from sftchat.plugins import spec as hookspecs
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import Registry

manager = pluggy.PluginManager("sftchat")
manager.add_hookspecs(hookspecs)
task = Task("quiz", "", lambda n, seed: (), lambda example, reply: Score({"n": 1, "right": 0}), (rate("accuracy", "right"),))
code = main(["eval", "model", "--evalset", "gold.jsonl", "--quiet"], obj=Session(given_registry=Registry(manager, {"quiz": task})))
print(code, sorted({"torch", "transformers", "tokenizers", "safetensors", "scipy"} & set(sys.modules)))
"""


def test_a_second_run_imports_no_model_library(desk: Desk, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "model")
    assert main(["eval", "model"], obj=Session(given_registry=desk.registry)) == 0

    done = subprocess.run([sys.executable, "-c", SECOND_RUN], capture_output=True, text=True, check=True)

    assert "8 of 8 replies cached" in done.stdout
    assert done.stdout.endswith("\n0 []\n")
