"""Tests of ``Conversation``: it is immutable, keeps all turns, and user and assistant turns always alternate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat.chat.conversation import Answer, Conversation, Turn
from sftchat.errors import UsageError
from sftchat.task import ReplyScore
from sftchat.types import Message, Reply


def said(text: str, why: str = "stop") -> Answer:
    return Answer(Reply(text, why))  # type: ignore[arg-type]


def talk(*turns: tuple[str, str], system: str = "") -> Conversation:
    found = Conversation(system)
    for question, reply in turns:
        found = found.ask(question).answer(said(reply))
    return found


def test_messages_alternate_after_the_system_prompt() -> None:
    begun = Conversation("be brief").ask("甲是谁？")
    more = begun.answer(said("师父", "length")).ask("<b>and</b>?")

    assert more.messages == (
        Message(role="system", content="be brief"),
        Message(role="user", content="甲是谁？"),
        Message(role="assistant", content="师父"),
        Message(role="user", content="<b>and</b>?"),
    )
    assert begun.waiting
    assert len(begun.turns) == 1
    assert [turn.partial for turn in more.turns] == [True, False]


def test_a_tag_in_a_reply_is_kept_as_generated() -> None:
    reply = "<think>\x1b[2J</think>\r\n  ok "

    assert talk(("x", reply)).messages[-1]["content"] == reply


def test_an_attempt_without_text_is_left_out_of_prompts_and_can_be_repeated() -> None:
    before = talk(("a", "b"), system="s")
    failed = before.ask("c").answer(said("", "error"))

    assert (failed.turns, failed.messages) == (before.turns, before.messages)
    assert failed.unanswered().messages[-1] == Message(role="user", content="c")
    assert failed.ask("d").path[-1].parent == before.head
    assert failed.undo().turns == ()


def test_a_model_without_a_reply_does_not_see_the_turn_and_stays_in_step() -> None:
    both = Conversation().ask("a").answer(said("A"), said("", "error")).ask("b").answer(said("B"), said("C"))

    assert [turn.question for turn in both.turns] == ["a", "b"]
    assert [turn.question for turn in both.seen_by(1).turns] == ["b"]


def test_reset_keeps_the_system_prompt_and_a_new_one_keeps_the_turns() -> None:
    old = talk(("a", "b"), system="old")

    assert old.reset().messages == Conversation("old").messages
    assert old.reset().go(old.leaves[0]).turns == old.turns
    assert old.with_system("new").turns == (Turn("a", said("b"), 2),)
    assert old.with_system("").messages[0]["role"] == "user"


def test_two_consecutive_user_turns_are_refused() -> None:
    with pytest.raises(ValueError, match="waits"):
        Conversation().ask("a").ask("b")
    with pytest.raises(ValueError, match="no message"):
        Conversation().answer(said("b"))
    with pytest.raises(UsageError, match="nothing was asked"):
        Conversation().unanswered()


def test_undo_and_redo_move_back_and_forth_until_a_new_message() -> None:
    whole = talk(("a", "A"), ("b", "B"), ("c", "C"))

    assert [turn.question for turn in whole.undo(2).turns] == ["a"]
    assert whole.undo().undo().redo().turns == whole.undo().turns
    assert whole.undo(3).redo() == whole
    assert whole.undo().ask("d").undone == ()
    for wrong in (0, 4):
        with pytest.raises(UsageError, match="cannot go back"):
            whole.undo(wrong)
    with pytest.raises(UsageError, match="nothing was undone"):
        whole.redo()


def test_another_reply_and_another_question_are_branches_and_the_old_ones_stay() -> None:
    first = talk(("a", "A"), ("b", "B"))
    again = first.unanswered().answer(said("B2"))
    other = again.undo(2).ask("x").answer(said("X"))

    assert [[turn.reply.text for turn in other.turns_to(end) if turn.reply] for end in other.leaves] == [["A", "B"], ["A", "B2"], ["X"]]
    assert other.go(first.head).turns == first.turns


def test_additional_facts_change_only_their_answer() -> None:
    both = Conversation().ask("a").answer(said("A"), said("B")).ask("c").answer(said("C"), said("D"))
    mark = ReplyScore("F1", 0.5, ("missing",))
    marked = both.with_answer(2, 1, Answer(Reply("B"), score=mark))

    assert [answer.score for node in marked.nodes for answer in node.answers] == [None, mark, None, None]
    assert mark.text == "F1 0.50: missing"
    assert [ReplyScore("F1", 1.0).text, ReplyScore("F1").text, ReplyScore("F1", errors=("line 2: no relation",)).text] == [
        "F1 1.00",
        "no gold, well-formed",
        "no gold; would be refused as one: line 2: no relation",
    ]


@given(st.lists(st.sampled_from(["ask", "fail", "undo", "redo", "again", "reset", "end"]), max_size=30))
def test_roles_alternate_and_nothing_is_lost_after_any_operations(steps: list[str]) -> None:
    now = Conversation("s")
    for number, step in enumerate(steps):
        before = now.nodes
        if step in ("ask", "fail"):
            now = now.ask(f"q{number}").answer(said("" if step == "fail" else f"a{number}", "error" if step == "fail" else "stop"))
        elif step == "undo" and now.turns:
            now = now.undo()
        elif step == "redo" and now.undone:
            now = now.redo()
        elif step == "again" and now.head:
            now = now.unanswered().answer(said(f"a{number}"))
        elif step == "reset":
            now = now.reset()
        elif step == "end" and now.leaves:
            now = now.go(now.leaves[number % len(now.leaves)])
        assert now.nodes[: len(before)] == before
        assert [message["role"] for message in now.messages] == (["system"] + ["user", "assistant"] * len(now.turns))
        assert all(node.parent < node.id == at for at, node in enumerate(now.nodes, start=1))
