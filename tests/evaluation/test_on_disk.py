"""Gold sets, replies and baselines that stay on disk give the bytes that they give in memory."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sftchat import DataError, NotComparableError, Reply, Score, SftchatError, Task, UsageError
from sftchat.evaluation import storage
from sftchat.evaluation.accepting import write_baseline
from sftchat.evaluation.baseline import Header, content_hash, read_baseline
from sftchat.evaluation.html import to_html
from sftchat.evaluation.junit import to_junit
from sftchat.evaluation.markdown import to_markdown
from sftchat.evaluation.on_disk.examples import StoredExamples
from sftchat.evaluation.on_disk.scoring import score_stored
from sftchat.evaluation.on_disk.spreading import spread
from sftchat.evaluation.on_disk.stored import stored_replies
from sftchat.evaluation.pipeline import carry_out
from sftchat.evaluation.plan import make_plan
from sftchat.evaluation.power import planned
from sftchat.evaluation.report import Report
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.rules import Demands
from sftchat.evaluation.scored import held
from sftchat.evaluation.storage import open_evalset
from sftchat.evaluation.tables import show
from sftchat.evaluation.verdict import judge

GOLD = "甲-乙:夫妻\n丙-丁:同门"
SAID = (GOLD, "丙-丁:同门\n甲-乙:夫妻", "甲-乙:夫妻", "丙-丁:同门", "甲-乙:恋人", "无", "戊-己:朋友\n庚-辛:朋友\n甲-乙:夫妻")
IN_MEMORY, ON_DISK = 1 << 40, 0


def rows(n: int) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": "谁和谁?"}]
    return [{"id": f"i{k}", "messages": turns, "gold": GOLD, "metadata": {"text": f"t{k % 7}"}} for k in range(n)]


def replies(n: int, step: int, failed: int | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"id": f"i{k}", "reply": SAID[k * step % len(SAID)] if k % 3 else GOLD} for k in range(n)]
    found[1] |= {"finish_reason": "length", "prompt_tokens": 7, "completion_tokens": 9}
    if failed is not None:
        found[failed] = {"id": f"i{failed}", "reply": "", "finish_reason": "error", "error": "server gone"}
    return found


def write(path: Path, lines: list[dict[str, Any]], end: str = "\n") -> Path:
    path.write_bytes(end.join([*(json.dumps(line, ensure_ascii=False) for line in lines), ""]).encode())
    return path


def evaluated(task: Task, folder: Path, large: int, **options: Any) -> tuple[Report, str]:
    """The report of the files of a folder, and everything that is written of it in one text."""
    output = folder / str(large)
    plan = make_plan(task, (), evalsets=[folder / "gold.jsonl"], replies=folder / "new.jsonl", output=output, large=large, **options)
    assert plan.storage is {IN_MEMORY: storage.IN_MEMORY, ON_DISK: storage.ON_DISK}[large]
    report = carry_out([plan], lambda task: pytest.fail, lambda *_: pytest.fail("nothing is asked"))
    verdict = judge(report, plan.demanded)
    page = io.StringIO()
    show(report, Console(file=page, width=120))
    files = [path.read_text(encoding="utf-8") for path in sorted(output.iterdir())]
    return report, "\n".join((page.getvalue(), to_html(report, verdict), to_junit(report, verdict), to_markdown(report, verdict), *files))


@contextmanager
def baseline(task: Task, folder: Path, lines: list[dict[str, Any]]) -> Iterator[Path]:
    """A baseline of these replies to the gold set."""
    path = folder / "base.jsonl"
    write(folder / "new.jsonl", lines)
    result = evaluated(task, folder, IN_MEMORY)[0].results[0]
    write_baseline(path, header(result), result.items)
    yield path


def header(result: ModelResult) -> Header:
    return Header("triples", ("f1", "exact"), "old", "", "", (result.evalset,), None)


@pytest.mark.parametrize(
    "options", [{}, {"cluster": "text"}, {"demands": Demands(gated=("exact=1",), must_pass=("i2", "i3"), strict=True)}]
)
def test_on_disk_and_in_memory_everything_written_is_the_same(task: Task, tmp_path: Path, options: dict[str, Any]) -> None:
    write(tmp_path / "gold.jsonl", rows(60))
    with baseline(task, tmp_path, replies(60, 2)) as path:
        write(tmp_path / "new.jsonl", replies(60, 3, failed=5)[::-1])

        expected, found = (evaluated(task, tmp_path, large, baseline=str(path), **options)[1] for large in (IN_MEMORY, ON_DISK))

    assert found == expected
    assert "newly broken" in found
    assert "server gone" in found


def test_replies_of_other_items_and_files_that_are_no_baseline_are_compared_alike(task: Task, tmp_path: Path) -> None:
    write(tmp_path / "gold.jsonl", rows(40))
    with baseline(task, tmp_path, replies(40, 2)) as path:
        write(tmp_path / "gold.jsonl", rows(50)[5:], end="\r\n\r\n")
        write(tmp_path / "new.jsonl", replies(50, 3)[5:])
        of_baseline = [evaluated(task, tmp_path, large, baseline=str(path))[1] for large in (IN_MEMORY, ON_DISK)]
    old = write(tmp_path / "old.jsonl", replies(50, 4, failed=7)[5:])
    of_replies = [evaluated(task, tmp_path, large, baseline=str(old))[1] for large in (IN_MEMORY, ON_DISK)]

    assert of_baseline[0] == of_baseline[1]
    assert of_replies[0] == of_replies[1]
    assert '"removed": [\n        "i0"' in of_baseline[1]


@pytest.mark.parametrize("before", [0, 1])
def test_rows_without_ids_behind_a_byte_order_mark_are_numbered(tmp_path: Path, before: int) -> None:
    text = "\n".join(json.dumps({key: value for key, value in row.items() if key != "id"}) for row in rows(3))
    (tmp_path / "gold.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n" * before + text.encode())

    memory, disk = (open_evalset(tmp_path / "gold.jsonl", None, large) for large in (None, ON_DISK))

    assert isinstance(disk.examples, StoredExamples)
    assert replace(disk, examples=tuple(disk.examples), ids=frozenset(disk.ids)) == memory
    assert disk.examples.ids == ["row-000001", "row-000002", "row-000003"]
    assert [example.source for example in disk.examples] == [f"{tmp_path / 'gold.jsonl'}:{before + n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "x", "messages": [], "gold": "无"}',
        '{"id": "x", "messages": [{"role": "user", "content": "?"}]}',
        '{"id": "x", "id": "y", "messages": [{"role": "user", "content": "?"}], "gold": "无"}',
        '{"id": "x", "text": "a"}',
        '{"id": "i1", "messages": [{"role": "user", "content": "?"}], "gold": "无"}',
        '{"id": "x", ',
        "[]",
    ],
)
def test_a_bad_row_is_refused_in_the_same_words(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "gold.jsonl", rows(2))
    with path.open("a", encoding="utf-8") as file:
        file.write(line)

    said = []
    for large in (None, ON_DISK):
        with pytest.raises(DataError) as caught:
            tuple(open_evalset(path, None, large).examples)
        said.append(str(caught.value))

    assert said[0] == said[1]


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "i0", "reply": "x"}',
        '{"id": "i1", "reply": 3}',
        '{"id": "i1", "reply": "x", "finish_reason": []}',
        '{"id": "i1", "reply": "x", "prompt_tokens": -1}',
        '{"reply": "x"}',
        '{"id": "i1", "reply": "x"',
        "3",
        '{"id": "i2", "reply": "x"}',
        '{"id": "i1", "reply": "x", "id": "i2"}',
    ],
)
def test_a_bad_reply_is_refused_in_the_same_words(task: Task, tmp_path: Path, line: str) -> None:
    write(tmp_path / "gold.jsonl", rows(2))
    (tmp_path / "new.jsonl").write_text('{"id": "i0", "reply": "x"}\n' + line + "\n", encoding="utf-8")

    said = []
    for large in (IN_MEMORY, ON_DISK):
        with pytest.raises(DataError) as caught:
            evaluated(task, tmp_path, large)
        said.append(str(caught.value))

    assert said[0] == said[1]


def test_an_id_of_another_programs_own_is_not_taken_for_the_items(tmp_path: Path) -> None:
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    path = write(tmp_path / "out.jsonl", [{"id": "vllm-1", "custom_id": "i0", "response": {"status_code": 200, "body": body}}])

    assert dict(stored_replies(path)) == {"i0": Reply("x")}


@pytest.mark.parametrize("change", ["gold", "prompt", "metadata", "right", "count", "cut", "same bytes"])
def test_a_baseline_of_other_items_or_another_scorer_is_not_comparable_in_the_same_words(task: Task, tmp_path: Path, change: str) -> None:
    gold = rows(30)
    write(tmp_path / "gold.jsonl", gold)
    said = []
    with baseline(task, tmp_path, replies(30, 2)) as path:
        first, *items = path.read_text(encoding="utf-8").splitlines(keepends=True)
        changed = {
            "count": [first, *(line.replace('"tp": 2', '"tp": 1') for line in items)],
            "right": [first, *(line.replace('"right": true', '"right": false') for line in items)],
            "cut": [first, *items[:-2]],
            "same bytes": [first.replace('"size": 30', '"size": 28'), *items[:-2]],
        }
        path.write_text("".join(changed.get(change, [first, *items])), encoding="utf-8")
        row = {"gold": {"gold": "无"}, "prompt": {"messages": [{"role": "user", "content": "?"}]}, "metadata": {"metadata": {"text": "?"}}}
        for place in (3, 9):
            gold[place] = gold[place] | row.get(change, {})
        write(tmp_path / "gold.jsonl", gold)
        for large in (IN_MEMORY, ON_DISK):
            with pytest.raises((NotComparableError, DataError)) as caught:
                evaluated(task, tmp_path, large, baseline=str(path))
            said.append(str(caught.value))

    assert said[0] == said[1]


def test_a_missing_cluster_key_is_refused_in_the_same_words(task: Task, tmp_path: Path) -> None:
    write(tmp_path / "gold.jsonl", rows(3))
    write(tmp_path / "new.jsonl", replies(3, 2))
    said = []
    for large in (IN_MEMORY, ON_DISK):
        with pytest.raises(UsageError) as caught:
            evaluated(task, tmp_path, large, cluster="document")
        said.append(str(caught.value))

    assert said[0] == said[1]


def test_a_new_baseline_is_the_same_bytes_and_says_the_same_of_the_old_one(task: Task, tmp_path: Path) -> None:
    write(tmp_path / "gold.jsonl", rows(30))
    with baseline(task, tmp_path, replies(30, 2)) as path:
        before = path.read_bytes()
        write(tmp_path / "new.jsonl", replies(30, 3))
        written = []
        for large in (IN_MEMORY, ON_DISK):
            path.write_bytes(before)
            result = evaluated(task, tmp_path, large)[0].results[0]
            told = write_baseline(path, header(result), result.items)
            written.append((told, path.read_bytes()))

    assert written[0] == written[1]
    assert list(read_baseline(path).items) == sorted(f"i{k}" for k in range(30))


def test_what_a_gold_set_can_show_is_the_same(task: Task, tmp_path: Path) -> None:
    gold, new = write(tmp_path / "gold.jsonl", rows(60)), write(tmp_path / "new.jsonl", replies(60, 3))

    plans = [make_plan(task, (), evalsets=[gold], replies=new, cluster="text", large=large) for large in (IN_MEMORY, ON_DISK)]

    assert planned(plans[:1]) == planned(plans[1:])


@pytest.mark.parametrize("processes", [1, 2])
def test_items_scored_in_several_processes_are_those_scored_in_one(task: Task, tmp_path: Path, processes: int) -> None:
    n = 5000
    examples = open_evalset(write(tmp_path / "gold.jsonl", rows(n)), None, ON_DISK).examples
    said = stored_replies(write(tmp_path / "new.jsonl", replies(n, 3, failed=4500)))
    assert isinstance(examples, StoredExamples)

    found = score_stored(task, examples, [said], processes=processes)[0]

    assert (len(found), [failure.example.id for failure in found.failures]) == (n - 1, ["i4500"])
    assert found.figures.table is not None
    assert found.figures.table.rows.sum(axis=0).tolist() == [
        sum(task.score(example, reply).stats[key] for example in examples if isinstance(reply := said[example.id], Reply))
        for key in found.figures.table.keys
    ]
    assert found.figures.tally == held(found).figures.tally
    assert [content_hash(item.example) for item in found[4498:]] == [content_hash(examples[k]) for k in (4498, 4499, *range(4501, n))]


def test_a_scorer_that_counts_now_this_now_that_is_named(task: Task, tmp_path: Path) -> None:
    def scorer(example: Any, reply: Reply) -> Score:
        return Score({"n": 1} if int(example.id[1:]) < 3000 else {"n": 1, "more": 1})

    examples = open_evalset(write(tmp_path / "gold.jsonl", rows(5000)), None, ON_DISK).examples
    said = stored_replies(write(tmp_path / "new.jsonl", replies(5000, 3)))
    assert isinstance(examples, StoredExamples)

    with pytest.raises(
        SftchatError,
        match=r"^the scorer of task '\w+' counts more, n on item 'i3000' and n on item 'i0'; it must count the same for every item$",
    ):
        score_stored(replace(task, score=scorer), examples, [said])


def double(part: range) -> list[int]:
    return [2 * number for number in part]


def test_work_spread_over_processes_comes_back_in_order() -> None:
    parts = [range(k, k + 3) for k in range(0, 30, 3)]

    assert list(spread(double, parts, 3)) == [double(part) for part in parts] == list(spread(double, parts, 1))


def test_an_error_in_a_process_is_the_error_of_the_first_part_that_has_one() -> None:
    def work(number: int) -> int:
        if number >= 2:
            raise DataError(f"bad {number}", "f:1")
        return number

    with pytest.raises(DataError, match=r"^f:1: bad 2$"):
        list(spread(work, range(5), 2))


def test_a_process_that_is_killed_ends_the_work_in_one_line() -> None:
    parent = os.getpid()

    def work(number: int) -> int:
        if number == 3 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(SftchatError, match="a process that scored items was killed; is there too little memory"):
        list(spread(work, range(8), 2))
