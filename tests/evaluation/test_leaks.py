"""Evalset items in the training data of a checkpoint, and its score without them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftchat import Example, Message, Task
from sftchat.evaluation import checks, reply_cache
from sftchat.evaluation.checks import MAX_TRAINING_ROWS, check_leaks
from sftchat.evaluation.evaluate import evaluate
from sftchat.evaluation.reply_cache import ReplyCache
from sftchat.evaluation.results import LeakCheck, ModelResult
from sftchat.models.fingerprint import file_hash
from sftchat.models.manifest import Manifest
from sftchat.testing import ScriptedEngine

PROMPTS = [
    f"第{number}章里，{who}背着药箱翻过山梁，赶到村口时徒弟已经等了半个时辰。"
    for number, who in enumerate(("周远山", "郑启明", "何小满", "沈知秋"))
]


def manifest(*sources: dict[str, Any]) -> Manifest:
    return Manifest("triples", "base", "", "full", {}, sources, 1, "", "", "")


@pytest.fixture
def result(task: Task, example: Callable[..., Example]) -> ModelResult:
    """Right on the first two of four items."""
    examples = [example(str(number), prompt=prompt) for number, prompt in enumerate(PROMPTS)]
    return evaluate(ScriptedEngine(lambda request: "甲-乙:夫妻" if request.id in "01" else "无"), task, examples)


@pytest.fixture
def training(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt, "completion": "甲-乙:夫妻"}) + "\n" for prompt in PROMPTS[:1]))
    return {"file": str(path), "sha256": file_hash(path)}


def test_leaked_items_are_listed_and_the_metrics_are_reported_without_them(
    result: ModelResult, task: Task, training: dict[str, Any]
) -> None:
    found = check_leaks(result, manifest(training), task, {})
    assert [(leak.id, leak.row) for leak in found.leaks] == [("0", f"{training['file']}:1")]
    assert (result.metric("exact").value, {metric.name: metric.value for metric in found.clean}) == (0.5, {"f1": 0.5, "exact": 1 / 3})
    assert found.unchecked == ()


def test_rows_of_a_generator_are_generated_again(result: ModelResult, task: Task) -> None:
    def generate(n: int, seed: int, *, first: int = 0) -> Iterator[Example]:
        return (Example((Message(role="user", content=PROMPTS[first + number]),), "无") for number in range(n))

    made = replace(task, generate=generate)
    found = check_leaks(result, manifest({"generator": "triples", "n": 2, "seed": 0, "options": {"first": 1}}), task, {"triples": made})
    assert [leak.id for leak in found.leaks] == ["1", "2"]


def test_a_check_that_cannot_run_is_reported(result: ModelResult, task: Task, training: dict[str, Any], tmp_path: Path) -> None:
    changed = training | {"sha256": "0" * 64}
    gone, fetched = ({"file": name, "sha256": ""} for name in ("gone", "hf://org/name"))
    found = check_leaks(result, manifest(changed, gone, fetched, {"generator": "other", "n": 1, "seed": 0, "options": {}}), task, {})
    assert found == LeakCheck(
        (),
        (),
        (
            f"{training['file']}: the file was changed after the training",
            "gone: no such file any more",
            "hf://org/name: data of the Hub is not fetched again for this",
            "other: task 'other' is not installed",
        ),
    )


def test_when_all_items_leaked_there_is_no_clean_score(result: ModelResult, task: Task, tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt, "completion": "无"}) + "\n" for prompt in PROMPTS))
    found = check_leaks(result, manifest({"file": str(path), "sha256": file_hash(path)}), task, {})
    assert (len(found.leaks), found.clean) == (4, ())


def test_a_huge_training_set_is_not_compared_by_default(result: ModelResult, task: Task, training: dict[str, Any]) -> None:
    found = check_leaks(result, replace(manifest(training), rows=MAX_TRAINING_ROWS + 1), task, {})
    assert found == LeakCheck((), (), ("1,000,001 rows are too many to compare unasked; 'sftchat data check EVALSET --against FILE' does",))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ReplyCache]:
    with closing(ReplyCache(tmp_path / "cache" / "replies.sqlite", pytest.fail, settled_seconds=-1)) as cache:
        yield cache


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items were compared, one entry for each comparison that was made."""
    counts: list[int] = []
    find = checks.find_leaks

    def counting(items: Any, rows: Any) -> Any:
        counts.append(len(items))
        return find(items, rows)

    monkeypatch.setattr(checks, "find_leaks", counting)
    return counts


def test_the_same_items_and_rows_are_compared_once(
    result: ModelResult, task: Task, training: dict[str, Any], cache: ReplyCache, compared: list[int]
) -> None:
    first = check_leaks(result, manifest(training), task, {}, cache=cache)
    assert first == check_leaks(result, manifest(training), task, {}, cache=cache) == check_leaks(result, manifest(training), task, {})
    assert (len(first.leaks), compared) == (1, [4, 4])


def test_other_rows_items_or_code_are_compared_again(
    result: ModelResult,
    task: Task,
    example: Callable[..., Example],
    training: dict[str, Any],
    cache: ReplyCache,
    compared: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_leaks(result, manifest(training), task, {}, cache=cache)
    path = Path(training["file"])
    path.write_text(path.read_text() + json.dumps({"prompt": PROMPTS[1], "completion": "无"}) + "\n")
    changed = check_leaks(result, manifest(training), task, {}, cache=cache)
    assert (changed.leaks, changed.unchecked) == ((), (f"{path}: the file was changed after the training",))
    more = check_leaks(result, manifest(training | {"sha256": file_hash(path)}), task, {}, cache=cache)
    assert [leak.id for leak in more.leaks] == ["0", "1"]
    fewer = evaluate(ScriptedEngine(["无"]), task, [example("1", prompt=PROMPTS[1])])
    assert [leak.id for leak in check_leaks(fewer, manifest(training | {"sha256": file_hash(path)}), task, {}, cache=cache).leaks] == ["1"]
    monkeypatch.setattr(checks, "CHECK_SOURCES", ("text.py",))
    check_leaks(result, manifest(training | {"sha256": file_hash(path)}), task, {}, cache=cache)
    assert compared == [4, 4, 4, 1, 4]


def rows_of_module(n: int, seed: int) -> Iterator[Example]:
    return (Example((Message(role="user", content=prompt),), "无") for prompt in PROMPTS[:n])


def test_rows_of_a_generator_are_compared_once_while_its_code_is_the_same(
    result: ModelResult, task: Task, cache: ReplyCache, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = {"triples": replace(task, generate=rows_of_module)}
    of_two = manifest({"generator": "triples", "n": 2, "seed": 0, "options": {}})
    monkeypatch.setattr(checks, "_hash_code", lambda function, hash_file: "first version")
    for _ in range(2):
        assert [leak.id for leak in check_leaks(result, of_two, task, tasks, cache=cache).leaks] == ["0", "1"]
    assert compared == [4]
    monkeypatch.setattr(checks, "_hash_code", lambda function, hash_file: "second version")
    check_leaks(result, of_two, task, tasks, cache=cache)
    assert compared == [4, 4]


def test_the_code_of_a_generator_is_its_whole_package_unless_it_is_a_closure() -> None:
    hashed: list[Path] = []

    def hash_of(path: Path) -> str:
        hashed.append(path)
        return ""

    assert checks._hash_code(rows_of_module, hash_of) != ""
    assert {Path(__file__), Path(__file__).parent / "conftest.py"} <= {*hashed}
    prompts = PROMPTS[:2]
    assert checks._hash_code(lambda n, seed: iter(prompts), hash_of) == ""


def test_a_damaged_result_is_made_again(
    result: ModelResult, task: Task, training: dict[str, Any], cache: ReplyCache, compared: list[int]
) -> None:
    whole = check_leaks(result, manifest(training), task, {}, cache=cache)
    for damaged in ("", '[[9, "row", 1.0]]', "[[0]]", "null"):
        with closing(sqlite3.connect(cache.path)) as connection, connection:
            connection.execute("UPDATE leak_checks SET leaks = ?", (damaged.encode(),))
        assert check_leaks(result, manifest(training), task, {}, cache=cache) == whole
    assert compared == [4] * 5


def test_a_comparison_that_takes_long_is_announced_once(
    result: ModelResult, task: Task, training: dict[str, Any], cache: ReplyCache
) -> None:
    lines: list[str] = []
    for _ in range(2):
        check_leaks(result, replace(manifest(training), rows=100_000), task, {}, cache=cache, say=lines.append)
    assert lines == ["comparing 4 items with 100,000 training rows, once for these rows"]


def test_results_of_comparisons_are_bounded(cache: ReplyCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_cache, "LEAK_BYTES", 10)
    times = iter(range(100))
    monkeypatch.setattr(reply_cache.time, "time", lambda: next(times))
    cache.put_leaks(b"first", "1234")
    cache.put_leaks(b"second", "1234")
    assert cache.get_leaks(b"first") == "1234"
    cache.put_leaks(b"third", "1234")
    assert [cache.get_leaks(key) for key in (b"first", b"second", b"third")] == ["1234", None, "1234"]
    cache.put_leaks(b"huge", "12345678901")
    assert cache.get_leaks(b"huge") is None
