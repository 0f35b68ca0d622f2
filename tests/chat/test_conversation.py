"""A conversation never changes in place, and user and assistant alternate whatever happens."""

from __future__ import annotations

import pytest

from sftchat.chat.conversation import Conversation, Turn
from sftchat.types import Message, Reply, SamplingParams

SAMPLING = SamplingParams(temperature=0.5)


def test_messages_alternate_after_the_system_prompt() -> None:
    begun = Conversation("be brief").ask("甲是谁？", SAMPLING)
    talk = begun.answer(Reply("师父", "length", 9, 2)).ask("<b>and</b>?", SAMPLING)

    assert talk.messages == (
        Message(role="system", content="be brief"),
        Message(role="user", content="甲是谁？"),
        Message(role="assistant", content="师父"),
        Message(role="user", content="<b>and</b>?"),
    )
    assert talk.last_request is not None
    assert (talk.last_request.messages, talk.last_request.sampling) == (talk.messages, SAMPLING)
    assert begun.waiting
    assert len(begun.turns) == 1
    assert [turn.partial for turn in talk.turns] == [True, False]


def test_a_tag_in_a_reply_is_kept_as_generated() -> None:
    reply = "<think>\x1b[2J</think>\r\n  ok "

    assert Conversation().ask("x", SAMPLING).answer(Reply(reply)).messages[-1]["content"] == reply


def test_a_withdrawn_message_leaves_no_trace() -> None:
    before = Conversation("s").ask("a", SAMPLING).answer(Reply("b"))

    assert before.ask("c", SAMPLING).withdraw().turns == before.turns
    assert before.withdraw() is before


def test_reset_keeps_the_system_prompt_and_a_new_one_keeps_the_turns() -> None:
    talk = Conversation("old").ask("a", SAMPLING).answer(Reply("b"))

    assert talk.reset() == Conversation("old")
    assert talk.with_system("new").turns == (Turn("a", Reply("b")),)
    assert talk.with_system("").messages[0]["role"] == "user"


def test_two_user_turns_in_a_row_cannot_be() -> None:
    with pytest.raises(ValueError, match="waits"):
        Conversation().ask("a", SAMPLING).ask("b", SAMPLING)
    with pytest.raises(ValueError, match="no message"):
        Conversation().answer(Reply("b"))
