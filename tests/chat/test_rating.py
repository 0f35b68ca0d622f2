"""Scores below replies, and replies that become rows for training and evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftchat import Example, Reply, SamplingParams, Score, Task, rate
from sftchat.chat.controller import ChatServices, ModelLoader
from sftchat.chat.pane import Opening
from sftchat.chat.rows import Rows
from sftchat.chat.scorer import GoldScorer
from sftchat.data.check import check
from sftchat.data.formats import read_examples
from sftchat.evaluation.evalset import read_evalset
from sftchat.models.manifest import MANIFEST
from sftchat.testing import ScriptedEngine
from tests.chat.logged import Log

View = Callable[..., Log]

ITEMS = [{"id": f"i{n}", "messages": [{"role": "user", "content": f"question {n}"}], "gold": f"answer {n}"} for n in range(8)]


def score(example: Example, reply: Reply) -> Score:
    if reply.text == "boom":
        raise ZeroDivisionError("oh")
    right = reply.text == example.gold
    return Score({"n": 1, "right": int(right)}, reply.text, () if right else ("wrong",))


def problems(example: Example) -> list[str]:
    return [] if example.gold and "answer" in example.gold else ["no answer in it"]


TASK = Task("family", "", lambda n, seed: [], score, (rate("accuracy", "right"),), validate_row=problems)


@pytest.fixture
def services(tmp_path: Path) -> ChatServices:
    golds = tmp_path / "gold.jsonl"
    golds.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    models = ModelLoader(identify=lambda model: f"hash of {model}")
    return ChatServices(GoldScorer(TASK, golds), models=models, rows=Rows(tmp_path / "rows", (golds,)))


def rows(services: ChatServices, kind: Any) -> list[dict[str, Any]]:
    path = services.rows.path(kind)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def test_a_reply_to_a_question_of_the_evalset_is_scored_against_its_gold(view: View, services: ChatServices) -> None:
    log = view(ScriptedEngine(["answer 1", "answer 9", "an answer", "what?"], chunks=99), services=services)

    assert log.type("question 1", " question 2", "something else", "and?") == [
        *["answer 1", "|", "mark: accuracy 1.00"],
        *["answer 9", "|", "mark: accuracy 0.00: wrong"],
        *["an answer", "|", "mark: no gold, well-formed"],
        *["what?", "|", "mark: no gold; would be refused as one: no answer in it"],
    ]
    assert log.chat.panes[0].score == log.chat.conversation.turns[-1].answer.score
    assert log.chat.conversation.turns[0].answer.score.value == 1.0


def test_every_model_gets_its_score(view: View, services: ChatServices) -> None:
    openings = [Opening(lambda: ScriptedEngine(["answer 3"]), ("a",)), Opening(lambda: ScriptedEngine(["no"]), ("b",))]
    log = view(openings=openings, services=services)
    log.type("question 3")

    assert [pane.score.text for pane in log.chat.panes] == ["accuracy 1.00", "accuracy 0.00: wrong"]


def test_a_scorer_that_fails_is_one_line_and_the_chat_continues(view: View, services: ChatServices, tmp_path: Path) -> None:
    log = view(ScriptedEngine(["boom", "answer 2"], chunks=99), services=services)

    assert log.type("question 1", "question 2") == [
        *["boom", "|", f"error: the scorer of task 'family' failed on item 'i1', in {__file__}:31: ZeroDivisionError: oh"],
        *["answer 2", "|", "mark: accuracy 1.00"],
    ]
    missing = view(ScriptedEngine(["x"], chunks=99), services=ChatServices(GoldScorer(TASK, tmp_path / "nosuch.jsonl")))
    assert missing.type("hello")[2] == f"error: {tmp_path}/nosuch.jsonl: no such evalset"


def test_good_writes_a_row_that_trains_only_this_reply_and_has_its_provenance(view: View, services: ChatServices) -> None:
    log = view(ScriptedEngine(["A", "B"], chunks=9), services=services, system="s", sampling=SamplingParams(temperature=0.5, seed=3))

    assert log.type("a", "b", "/good") == [
        "A",
        "|",
        "mark: no gold; would be refused as one: no answer in it",
        "B",
        "|",
        "mark: no gold; would be refused as one: no answer in it",
        f"note: row written: {services.rows.path('messages')}:1",
    ]
    (row,) = rows(services, "messages")
    about = row.pop("sftchat")
    assert row == {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "A", "weight": 0},
            {"role": "user", "content": "b"},
            {"role": "assistant", "content": "B"},
        ]
    }
    assert (about["model"], about["identity"], about["sampling"]["seed"], about["sampling"]["temperature"]) == (
        "scripted",
        "hash of scripted",
        3,
        0.5,
    )
    assert {"adapter", "template_hash", "template_arguments", "finish_reason", "session", "written", "version"} < set(about)
    assert log.type("/good") == [f"error: {services.rows.path('messages')}:1: the same row is there already; nothing is written"]


def test_a_pair_is_written_as_soon_as_there_is_a_better_and_a_worse_reply(view: View, services: ChatServices) -> None:
    log = view(ScriptedEngine(["bad one", "good one"], chunks=9), services=services, sampling=SamplingParams(temperature=1.0))

    assert log.type("a", "/bad")[-1].startswith("note: noted; a pair is written when another reply to this message is /good")
    assert rows(services, "preferences") == []
    log.type("/regen", "/good")
    (pair,) = rows(services, "preferences")
    assert (pair["chosen"], pair["rejected"]) == (
        [{"role": "assistant", "content": "good one"}],
        [{"role": "assistant", "content": "bad one"}],
    )
    assert pair["prompt"] == [{"role": "user", "content": "a"}]


def test_bad_after_good_writes_the_pair_too(view: View, services: ChatServices) -> None:
    log = view(ScriptedEngine(["good one", "bad one"], chunks=9), services=services, sampling=SamplingParams(temperature=1.0))
    log.type("a", "/good", "/regen", "/bad")

    assert [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in rows(services, "preferences")] == [
        ("good one", "bad one")
    ]


def test_a_reply_that_is_a_training_row_cannot_be_rated_bad(view: View, services: ChatServices) -> None:
    log = view(ScriptedEngine(["A"], chunks=9), services=services)

    assert log.type("a", "/good", "/bad")[-1] == f"error: this reply is a row of {services.rows.path('messages')}; take it out there first"


def test_a_fixed_reply_is_a_row_and_a_pair_and_continues_the_conversation(view: View, services: ChatServices) -> None:
    engine = ScriptedEngine(["worng", "next"], chunks=9)
    log = view(engine, services=services)

    assert log.type("a", "/fix")[-1] == "proposed: /fix worng"
    assert log.type("/fix worng") == ["error: the reply says that already; /good writes it as it is"]
    log.type("/fix wrong\nno more", "b")
    assert [message["content"] for message in engine.requests[-1].messages] == ["a", "wrong\nno more", "b"]
    assert rows(services, "messages")[0]["messages"][-1]["content"] == "wrong\nno more"
    assert rows(services, "preferences")[0]["rejected"][0]["content"] == "worng"
    assert rows(services, "messages")[0]["sftchat"]["fixed"]


def test_gold_writes_an_item_and_no_prompt_is_for_training_and_scoring(view: View, services: ChatServices) -> None:
    log = view(ScriptedEngine(lambda request: "A", chunks=9), services=services)
    evalset, messages = services.rows.path("evalset"), services.rows.path("messages")

    assert log.type("a", "/gold right", "/good")[-2:] == [
        f"note: row written: {evalset}:1",
        f"error: {evalset}:1: the same prompt is there; a row is for training or for evaluation, never for both: nothing is written",
    ]
    assert log.type("/reset", "question 1", "/good")[-1].startswith(
        f"error: {services.rows.evalsets[0]}:2: the same prompt is there; a row is for"
    )
    assert log.type("/reset", "b", "/good", "/gold")[-1].startswith(f"error: {messages}:1: the same prompt is there; a row is for")
    assert log.type("/reset", "a", "/gold other")[-1] == f"error: {evalset}:1: its prompt has another reply there; nothing is written"
    assert [(example.messages[-1]["content"], example.gold) for example in read_evalset(evalset).examples] == [("a", "right")]


def test_the_rows_pass_the_check_and_are_read_correctly(view: View, services: ChatServices) -> None:
    log = view(ScriptedEngine(lambda request: f"an answer {len(request.messages)}", chunks=99), services=services)
    log.type("one", "/good", "two", "/fix another answer", "/reset", "three", "/gold")

    for kind in ("messages", "preferences", "evalset"):
        found = check(services.rows.path(kind), TASK)  # type: ignore[arg-type]
        assert (found.problems, found.rows) == ((), {"messages": 2, "preferences": 1, "evalset": 1}[kind])
    assert check(services.rows.path("evalset"), against=[str(services.rows.path("messages"))]).problems == ()
    (pair,) = read_examples(services.rows.path("preferences"))
    assert (pair.gold, pair.metadata["rejected"][0]["content"]) == ("another answer", "an answer 3")


@pytest.mark.parametrize("line", ['{"messages": [', '{"nothing": 1}\n'])
def test_a_damaged_file_is_reported_with_its_line_and_left_unchanged(view: View, services: ChatServices, line: str) -> None:
    path = services.rows.path("messages")
    path.parent.mkdir()
    path.write_text(line)
    log = view(ScriptedEngine(["A"], chunks=9), services=services)

    assert log.type("a", "/good")[-1].startswith(f"error: {path}:1: ")
    assert path.read_text() == line


def test_a_row_is_not_appended_to_a_last_line_without_its_newline(view: View, services: ChatServices) -> None:
    path = services.rows.path("messages")
    path.parent.mkdir()
    path.write_text('{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}')
    log = view(ScriptedEngine(["A"], chunks=9), services=services)

    assert log.type("a", "/good")[-1] == f"note: row written: {path}:2"
    assert len(rows(services, "messages")) == 2


def test_an_unwritable_folder_is_one_line(view: View, services: ChatServices) -> None:
    services.rows.folder.write_text("a file where the folder should be")
    log = view(ScriptedEngine(["A", "B"], chunks=9), services=services)

    assert log.type("a", "/good")[-1].startswith(f"error: {services.rows.path('messages')}: cannot be written: ")
    assert log.type("b")[:2] == ["B", "|"]


def test_a_sample_of_the_evalset_is_scored_by_every_model_with_its_adapter(view: View, services: ChatServices) -> None:
    right = ScriptedEngine(lambda request: request.messages[-1]["content"].replace("question", "answer"), chunks=99)
    wrong = ScriptedEngine(lambda request: "no", chunks=99)
    log = view(openings=[Opening(lambda: right, ("a",), ("lora",)), Opening(lambda: wrong, ("b",))], services=services)

    said = log.type("/eval 4")
    assert [line.split(" [")[0] for line in said] == [
        "note: a with adapter lora, 4 of 8 items: accuracy 1.000",
        "note: b, 4 of 8 items: accuracy 0.000",
    ]
    assert {request.adapter for request in right.requests} == {"lora"}
    assert [request.id for request in right.requests] == [request.id for request in wrong.requests]
    assert len(log.type("/eval 99")) == 2
    assert len(wrong.requests) == 12


def test_a_score_of_the_evalset_names_the_precision_unless_it_is_that_of_an_evaluation(view: View, services: ChatServices) -> None:
    class Described(ScriptedEngine):
        summary = ""

        def __init__(self, precision: str) -> None:
            super().__init__(lambda request: "no", chunks=99)
            self.precision = precision

    openings = [Opening(lambda precision=precision: Described(precision), (precision,)) for precision in ("bfloat16", "float32")]
    log = view(openings=openings, services=services)

    assert [line.split(" [")[0] for line in log.type("/eval 4")] == [
        "note: bfloat16 in bfloat16, 4 of 8 items: accuracy 0.000",
        "note: float32, 4 of 8 items: accuracy 0.000",
    ]


def test_an_item_is_sent_as_evaluation_sends_it(view: View, services: ChatServices) -> None:
    engine = ScriptedEngine(lambda request: "answer 2", chunks=99)
    log = view(engine, services=services)

    assert log.type("hello", "/item i2")[-1] == "mark: accuracy 1.00"
    assert [message["content"] for message in engine.requests[-1].messages] == ["question 2"]
    assert log.type("/item 4")[-1] == "mark: accuracy 0.00: wrong"
    assert log.type("/item nosuch") == ["error: no item 'nosuch': give a number from 1 to 8 or an id, such as 'i0', 'i1', 'i2' and 5 more"]


def test_without_a_task_there_is_nothing_to_score(view: View) -> None:
    log = view(ScriptedEngine(["A"], chunks=9))

    assert log.type("a", "/eval") == ["A", "|", "error: /eval: the conversation has no task; 'sftchat chat MODEL --task TASK' has"]


@pytest.mark.slow
def test_the_rows_train_and_score_a_model_as_they_are(
    view: View, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sftchat.cli import main

    shelf = Rows(tmp_path / "rows")
    log = view(ScriptedEngine(lambda request: f"答 {len(request.messages)}", chunks=99), services=ChatServices(rows=shelf))
    log.type("甲和乙是什么关系？", "/good", "还有呢？", "/fix 没有了", "/reset", "二加三等于几？", "/gold 5")
    messages, pairs, golds = (str(shelf.path(kind)) for kind in ("messages", "preferences", "evalset"))  # type: ignore[arg-type]

    assert main(["data", "check", messages, pairs, "--against", golds]) == 0
    run = str(tmp_path / "run")
    words = ["train", "general", "--model", str(tiny_checkpoint), "--data", messages, "--data", pairs, "--max-steps", "1", "-o", run]
    assert main(words) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "run" / MANIFEST).read_text())["rows"] == 3
    assert main(["eval", run, "--task", "general", "--evalset", golds]) == 0, capsys.readouterr().err
