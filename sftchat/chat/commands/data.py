"""Commands that turn replies into data rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from sftchat.chat.commands.arguments import why_no_reply
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.chat.conversation import Answer, Rating
from sftchat.engine import Engine, Templated
from sftchat.errors import UsageError
from sftchat.types import Message, Reply


def _last_reply(context: ChatContext) -> tuple[tuple[Message, ...], Answer]:
    """Return the messages up to the last user message, and the answer in the focused pane."""
    answer = context.conversation.turns[-1].answer
    if answer is None or not answer.reply.text:
        raise UsageError("the last message has no reply")
    return context.conversation.messages[:-1], answer


def _provenance(context: ChatContext, answer: Answer, engine: Engine) -> dict[str, Any]:
    """Return the provenance fields of a row; may be slow, so it runs on the engine thread."""
    from sftchat import __version__

    return {
        "model": answer.model,
        "identity": context.services.models.identify(answer.model),
        "adapter": answer.adapter,
        "adapter_identity": context.services.models.identify(answer.adapter) if Path(answer.adapter or "/nosuch").is_dir() else "",
        "sampling": asdict(answer.sampling),
        "template_hash": engine.template_hash if isinstance(engine, Templated) else "",
        "template_arguments": dict(answer.template_arguments),
        "finish_reason": answer.reply.finish_reason,
        "dropped_turns": answer.dropped,
        "session": context.services.session.id,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": __version__,
    }


def _write(context: ChatContext, answer: Answer, rows: Callable[[Mapping[str, Any]], list[str]], then: Callable[[], None]) -> None:
    """Append rows on the engine thread and report where they were written."""

    def done(places: list[str]) -> None:
        context.info("\n".join(f"row written: {place}" for place in places))
        then()

    context.work("writing rows", lambda engine, work: rows(_provenance(context, answer, engine)), done)


def _rate(context: ChatContext, rating: Rating) -> None:
    conversation = context.conversation
    turn = conversation.turns[-1]
    assert turn.answer is not None
    context.conversation = conversation.with_answer(turn.id, conversation.pane, replace(turn.answer, rating=rating))


def _rated(context: ChatContext, rating: Rating) -> list[str]:
    """Return the replies of other panes and attempts to the last message that have the rating."""
    conversation = context.conversation
    question = conversation.node(conversation.turns[-1].id).parent
    answers = [answer for node in conversation.nodes if node.parent == question for answer in node.answers]
    return [answer.reply.text for answer in answers if answer.rating == rating]


def _good(context: ChatContext, argument: str) -> None:
    """Append a reply as a training row; also a preference pair when a reply to the same message was rated bad."""
    messages, answer = _last_reply(context)
    rejected = [text for text in _rated(context, "bad") if text != answer.reply.text]

    def rows(about: Mapping[str, Any]) -> list[str]:
        places = [context.services.rows.add_training_row(messages, answer.reply.text, about)]
        return places + [context.services.rows.add_preference_pair(messages, answer.reply.text, text, about) for text in rejected[-1:]]

    _write(context, answer, rows, lambda: _rate(context, "good"))


def _bad(context: ChatContext, argument: str) -> None:
    """Rate a reply as bad; append a preference pair when there is a better reply."""
    messages, answer = _last_reply(context)
    if answer.rating == "good":
        raise UsageError(f"this reply is a row of {context.services.rows.path('messages')}; take it out there first")
    chosen = [text for text in _rated(context, "good") if text != answer.reply.text]
    if not chosen:
        _rate(context, "bad")
        context.info("noted; a pair is written when another reply to this message is /good, or this one is put right by /fix TEXT")
        return
    _write(
        context,
        answer,
        lambda about: [context.services.rows.add_preference_pair(messages, chosen[-1], answer.reply.text, about)],
        lambda: _rate(context, "bad"),
    )


def _fix(context: ChatContext, argument: str) -> None:
    """Replace a reply by a corrected text; append a training row and a preference pair."""
    messages, answer = _last_reply(context)
    if not argument:
        if not context.prefill_input(f"/fix {answer.reply.text}"):
            raise UsageError("the right reply is missing: /fix TEXT")
        return
    if argument == answer.reply.text.strip():
        raise UsageError("the reply says that already; /good writes it as it is")

    def rows(about: Mapping[str, Any]) -> list[str]:
        fixed = {**about, "fixed": True}
        return [
            context.services.rows.add_training_row(messages, argument, fixed),
            context.services.rows.add_preference_pair(messages, argument, answer.reply.text, fixed),
        ]

    def put() -> None:
        conversation = context.conversation
        answers = list(conversation.path[-1].answers)
        answers[min(conversation.pane, len(answers) - 1)] = replace(
            answer, reply=Reply(argument), token_ids=(), choices=(), score=None, rating="good"
        )
        context.conversation = conversation.unanswered().answer(*answers)

    _write(context, answer, rows, put)


def _gold(context: ChatContext, argument: str) -> None:
    """Append an evalset item: the last message, with the reply or the given text as gold."""
    messages, answer = _last_reply(context)
    _write(
        context,
        answer,
        lambda about: [context.services.rows.add_evalset_item(messages, argument or answer.reply.text, about)],
        lambda: None,
    )


_command = partial(ChatCommand, topic="data")
COMMANDS = (
    _command("good", "save the last reply as a training row", _good, unavailable_reason=why_no_reply),
    _command("bad", "save the last reply as the rejected one of a pair", _bad, unavailable_reason=why_no_reply),
    _command("fix", "save a corrected reply: a training row and a pair", _fix, "[TEXT]", unavailable_reason=why_no_reply),
    _command("gold", "save the last message as an item of an evalset", _gold, "[TEXT]", unavailable_reason=why_no_reply),
)
