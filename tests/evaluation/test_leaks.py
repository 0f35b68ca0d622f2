"""Evalset items in the training data of a checkpoint, and its score without them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftchat import Example, Message, Task
from sftchat.evaluation.checks import MOST_ROWS, check_leaks
from sftchat.evaluation.evaluate import evaluate
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
    found = check_leaks(result, replace(manifest(training), rows=MOST_ROWS + 1), task, {})
    assert found == LeakCheck((), (), ("200,001 rows are too many to compare unasked; 'sftchat data check EVALSET --against FILE' does",))
