"""Several processes generate a model's replies in shares, and the first one reports as a single process would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sftchat import Task, UsageError
from sftchat.evaluation.cached_engine import CachedEngine, CacheOptions
from sftchat.evaluation.pipeline import generate_shard, no_progress, run_plans
from sftchat.evaluation.plan import Plan, make_plan
from sftchat.evaluation.reply_cache import ReplyCache
from sftchat.evaluation.task_run import OpenEngine
from sftchat.inference.distributed import ProcessInfo, process_info
from sftchat.testing import ScriptedEngine

ROWS = [{"id": f"i{k}", "messages": [{"role": "user", "content": f"{k}?"}], "gold": "无"} for k in range(7)]


@pytest.fixture
def plan(task: Task, tmp_path: Path) -> Plan:
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return make_plan(task, ["m"], evalset_sources=[gold])


def remembering(store: ReplyCache, identity: str, opened: list[ScriptedEngine]) -> Callable[[Task], OpenEngine]:
    """Return an opener of a scripted model that replies 无 to all but every third item."""

    def open_model(name: str) -> ScriptedEngine:
        opened.append(ScriptedEngine(lambda request: "甲-乙:夫妻" if request.id in ("i0", "i3", "i6") else "无", name=name))
        return opened[-1]

    return lambda task: lambda name: CachedEngine(name, open_model, CacheOptions(store, lambda model: identity))


def test_every_item_is_in_exactly_one_share_and_the_report_needs_no_model(plan: Plan, tmp_path: Path) -> None:
    opened: list[ScriptedEngine] = []
    with closing(ReplyCache(tmp_path / "replies.sqlite", pytest.fail)) as store:
        opener = remembering(store, "ab" * 32, opened)
        for rank in (0, 1, 2):
            generate_shard([plan], opener, no_progress, ProcessInfo(rank, 3))
        asked = [[request.id for request in engine.requests] for engine in opened]
        report = run_plans([plan], opener, no_progress)

    alone = run_plans([plan], lambda task: lambda name: CachedEngine(name, lambda _: opened[0]), no_progress)
    assert asked == [["i0", "i3", "i6"], ["i1", "i4"], ["i2", "i5"]]
    assert (len(opened), report.results[0].cached) == (3, 7)
    assert report.to_json() == alone.to_json()


def test_a_model_whose_replies_are_not_cached_cannot_be_shared(plan: Plan, tmp_path: Path) -> None:
    with (
        closing(ReplyCache(tmp_path / "replies.sqlite", pytest.fail)) as store,
        pytest.raises(UsageError, match="the replies of 'm' are not cached, so 2 processes cannot share the work; start one process"),
    ):
        generate_shard([plan], remembering(store, "", []), no_progress, ProcessInfo(0, 2))


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, ProcessInfo()),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, ProcessInfo(5, 8, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, ProcessInfo()),
    ],
)
def test_the_launcher_determines_which_process_this_is(environment: dict[str, str], place: ProcessInfo) -> None:
    assert process_info(environment) == place


def evaluate(words: list[str], cache: Path) -> None:
    environment = {**os.environ, "SFTCHAT_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_under_torchrun_write_the_bytes_of_one(tiny_checkpoint: Path, tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    words = ["-m", "sftchat", "eval", str(tiny_checkpoint), "--task", "general", "--evalset", str(gold), "--dtype", "float32", "-o"]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29614"]

    evaluate([*words, str(tmp_path / "one")], tmp_path / "first")
    evaluate([*torchrun, *words, str(tmp_path / "two")], tmp_path / "second")

    files = ("report.json", "report.html", "replies.jsonl")
    one, two = ([(tmp_path / folder / file).read_bytes() for file in files] for folder in ("one", "two"))
    assert one == two
    assert len(one[2].splitlines()) == len(ROWS)
