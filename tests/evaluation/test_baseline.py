"""The baseline file: written whole, read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sftchat import DataError, Example, NotComparableError, Reply, SamplingParams, Task
from sftchat.evaluation.accepting import write_baseline
from sftchat.evaluation.baseline import Header, content_hash, is_baseline, known_sampling, read_baseline
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.items import score
from sftchat.evaluation.scored import held

Make = Callable[..., Example]
HEADER = Header(
    "triples", ("f1", "exact"), "run", "ab12", "", (EvalsetIdentity("gold.jsonl", "cd34", 2),), known_sampling(SamplingParams())
)


def test_what_was_written_is_read_again(task: Task, example: Make, tmp_path: Path) -> None:
    path = tmp_path / "base.jsonl"
    items = [score(task, example(name), Reply(said, "stop", 3, 4)) for name, said in (("b", "无"), ("a", "甲-乙:夫妻"))]

    assert write_baseline(path, HEADER, held(items)) == (f"baseline {path}: written, 2 items of run",)
    found = read_baseline(path)

    assert found.header == HEADER
    assert list(found.items) == ["a", "b"]
    assert {name: (item.reply, item.right, item.content) for name, item in found.items.items()} == {
        item.example.id: (item.reply, item.right, content_hash(item.example)) for item in items
    }
    assert found.items["a"].stats == {"exact": 1, "gold": 1, "n": 1, "pred": 1, "tp": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["base.jsonl"]


def test_the_content_of_an_item_is_its_prompt_and_its_gold_reply_alone(example: Make) -> None:
    one = example("a")

    assert content_hash(replace(one, id="b", metadata={"x": 1}, source="y:1")) == content_hash(one)
    assert content_hash(example("a", gold="无")) != content_hash(one)
    assert content_hash(example("a", prompt="?")) != content_hash(one)


def test_sampling_that_is_greedy_has_no_seed() -> None:
    assert known_sampling(SamplingParams(seed=1)) == known_sampling(SamplingParams(seed=2))
    assert known_sampling(SamplingParams(temperature=1, seed=1)) != known_sampling(SamplingParams(temperature=1, seed=2))


FIRST = json.dumps(
    {"sftchat_baseline": 1, "task": "t", "metrics": ["f1"], "model": "m", "identity": "", "template_hash": "", "evalsets": []}
)
ITEM = '{"id": "a", "reply": "x", "stats": {"n": 1}, "right": true, "content": "0"}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sftchat_baseline": 1, "task": "t"}\n', ":1: not the header of a baseline: "),
        (FIRST[:-1] + ', "sampling": null}\n' + ITEM + ITEM, ":3: id 'a' stands twice"),
        (FIRST[:-1] + ', "sampling": null}\n{"id": "a", "reply": "x"}\n', ":2: item 'a' must have 'stats', 'right' and 'content'"),
        (FIRST[:-1] + ', "sampling": null}\n{"id": "a", "reply": "", "finish_reason": "error"}\n', ":2: item 'a' was not answered"),
        (FIRST[:-1] + ', "sampling": null}\n{\n', ":2: not a JSON object: "),
    ],
)
def test_a_malformed_baseline_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "base.jsonl"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(DataError) as caught:
        read_baseline(path)

    assert str(caught.value).startswith(f"{path}{message}")


def test_a_baseline_of_a_later_version_is_not_comparable(tmp_path: Path) -> None:
    path = tmp_path / "base.jsonl"
    path.write_text('{"sftchat_baseline": 2}\n', encoding="utf-8")

    with pytest.raises(NotComparableError, match=r"base.jsonl has schema version 2; this sftchat reads 1$"):
        read_baseline(path)


@pytest.mark.parametrize("text", ["", "[]\n", "{\n", '{"id": "a"}\n', '\ufeff{"id": "a", "reply": "x"}\n'])
def test_other_files_are_no_baseline(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f"
    path.write_text(text, encoding="utf-8")

    assert not is_baseline(path)
    assert not is_baseline(tmp_path)
