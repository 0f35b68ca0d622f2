"""The baseline file: written completely, read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from sftchat import DataError, Example, NotComparableError, Reply, SamplingParams, Task
from sftchat.evaluation.baseline import Header, content_hash, is_baseline, read_baseline, sampling_to_json
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.evaluate import Scorer
from sftchat.evaluation.scored import collect_outcomes
from sftchat.evaluation.update_baseline import write_baseline

Make = Callable[..., Example]
HEADER = Header(
    "triples", ("f1", "exact"), "run", "ab12", "", (EvalsetIdentity("gold.jsonl", "cd34", 2),), sampling_to_json(SamplingParams())
)


def test_a_baseline_is_read_as_it_was_written(task: Task, example: Make, tmp_path: Path) -> None:
    path = tmp_path / "base.jsonl"
    items = [Scorer(task)(example(name), Reply(said, "stop", 3, 4)) for name, said in (("b", "无"), ("a", "甲-乙:夫妻"))]

    assert write_baseline(path, HEADER, collect_outcomes(items)) == f"baseline {path}: written, 2 items of run"
    found = read_baseline(path)

    assert found.header == HEADER
    assert list(found.items) == ["a", "b"]
    assert {name: (item.reply, item.right, item.content) for name, item in found.items.items()} == {
        item.example.id: (item.reply, item.right, content_hash(item.example)) for item in items
    }
    assert found.items["a"].stats == {"exact": 1, "gold": 1, "n": 1, "pred": 1, "tp": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["base.jsonl"]


def test_the_hash_of_an_item_covers_everything_a_scorer_reads(example: Make) -> None:
    one = replace(example("a"), metadata={"x": {"at most": 1}, "y": 2})

    assert content_hash(replace(one, metadata={"y": 2, "x": {"at most": 1}}, source="y:1")) == content_hash(one)
    for field in fields(Example):
        other = {"messages": ({"role": "user", "content": "?"},), "gold": "无", "id": "b", "metadata": {"x": {"at most": 2}, "y": 2}}
        changed = replace(one, **{field.name: other.get(field.name, "elsewhere:1")})
        assert (content_hash(changed) != content_hash(one)) == (field.name != "source")


def test_greedy_sampling_has_no_seed() -> None:
    assert sampling_to_json(SamplingParams(seed=1)) == sampling_to_json(SamplingParams(seed=2))
    assert sampling_to_json(SamplingParams(temperature=1, seed=1)) != sampling_to_json(SamplingParams(temperature=1, seed=2))


FIRST = json.dumps(
    {"sftchat_baseline": 2, "task": "t", "metrics": ["f1"], "model": "m", "identity": "", "template_hash": "", "evalsets": []}
)
ITEM = '{"id": "a", "reply": "x", "stats": {"n": 1}, "right": true, "content": "0"}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sftchat_baseline": 2, "task": "t"}\n', ":1: not the header of a baseline: "),
        (FIRST[:-1] + ', "sampling": null}\n' + ITEM + ITEM, ":3: id 'a' stands twice"),
        (FIRST[:-1] + ', "sampling": null}\n{"id": "a", "reply": "x"}\n', ":2: item 'a' must have 'stats', 'right' and 'content'"),
        (FIRST[:-1] + ', "sampling": null}\n{"id": "a", "reply": "", "finish_reason": "error"}\n', ":2: item 'a' was not answered"),
        (FIRST[:-1] + ', "sampling": null}\n{\n', ":2: not a JSON object: "),
        (FIRST[:-1] + ', "sampling": null, "task": "u"}\n', ':1: not the header of a baseline: key "task" stands twice in one object'),
        (FIRST[:-1] + ', "sampling": null}\n{"id": "a", "id": "b"}\n', ':2: not a JSON object: key "id" stands twice in one object; '),
        (
            FIRST[:-1] + ', "sampling": null}\n' + ITEM,
            ": the header counts 0 items and the file has 1; restore it, or write it again with ",
        ),
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
    path.write_text('{"sftchat_baseline": 3}\n', encoding="utf-8")

    with pytest.raises(NotComparableError, match=r"base.jsonl has schema version 3; this sftchat reads 2$"):
        read_baseline(path)


def test_a_baseline_of_the_first_version_is_not_comparable_and_can_be_replaced(task: Task, example: Make, tmp_path: Path) -> None:
    path = tmp_path / "base.jsonl"
    path.write_text('{"sftchat_baseline": 1}\n', encoding="utf-8")
    words = f"baseline {path} has schema version 1, which has no hash of the items' metadata; write it again with --update-baseline {path}"

    with pytest.raises(NotComparableError, match=re.escape(words)):
        read_baseline(path)

    items = [Scorer(task)(example(name), Reply("无")) for name in ("a", "b")]
    assert write_baseline(path, HEADER, collect_outcomes(items)) == (
        f"baseline {path}: written, 2 items of run, in place of one that could not be read ({words})"
    )
    assert list(read_baseline(path).items) == ["a", "b"]


@pytest.mark.parametrize("text", ["", "[]\n", "{\n", '{"id": "a"}\n', '\ufeff{"id": "a", "reply": "x"}\n'])
def test_other_files_are_not_baselines(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f"
    path.write_text(text, encoding="utf-8")

    assert not is_baseline(path)
    assert not is_baseline(tmp_path)
