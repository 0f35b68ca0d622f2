"""Commands that turn replies into data rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftchat.chat.commands.arguments import why_no_reply
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.engine import Engine, Templated
from sftchat.errors import UsageError
from sftchat.types import Message, Reply

if TYPE_CHECKING:
    from sftchat.chat.conversation import Answer, Rating


def _last_reply(context: ChatContext) -> tuple[tuple[Message, ...], Answer]:
    """Return the messages up to the last user message, and the answer of the focused pane to it."""
    answer = context.conversation.turns[-1].answer
    if answer is None or not answer.reply.text:
        raise UsageError("the last message has no reply")
    return context.conversation.messages[:-1], answer


def _provenance(context: ChatContext, answer: Answer, engine: Engine) -> dict[str, Any]:
    """Return the provenance fields of a row. Thread: engine, because hashing the weights may be slow."""
    from sftchat import __version__

    adapter_has_files = bool(answer.adapter) and Path(answer.adapter).is_dir()
    identify = context.services.models.identify
    return {
        "model": answer.model,
        "identity": identify(answer.model),
        "adapter": answer.adapter,
        "adapter_identity": identify(answer.adapter) if adapter_has_files else "",
        "sampling": asdict(answer.sampling),
        "template_hash": engine.template_hash if isinstance(engine, Templated) else "",
        "template_arguments": dict(answer.template_arguments),
        "finish_reason": answer.reply.finish_reason,
        "dropped_turns": answer.dropped,
        "session": context.services.session.id,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": __version__,
    }


def _append_rows(context: ChatContext, answer: Answer, append: Callable[[Mapping[str, Any]], list[str]], then: Callable[[], None]) -> None:
    """Append rows on the engine thread and report where they were written.

    Args:
        context: The chat.
        answer: The answer whose provenance the rows get.
        append: Called with the provenance fields; appends the rows and returns the location of each.
        then: Called on the UI thread when the rows are written.
    """

    def done(locations: list[str]) -> None:
        context.info("\n".join(f"row written: {location}" for location in locations))
        then()

    context.work("writing rows", lambda engine, handle: append(_provenance(context, answer, engine)), done)


def _set_rating(context: ChatContext, rating: Rating) -> None:
    conversation = context.conversation
    turn = conversation.turns[-1]
    assert turn.answer is not None
    context.conversation = conversation.with_answer(turn.id, conversation.pane, replace(turn.answer, rating=rating))


def _replies_rated(context: ChatContext, rating: Rating) -> list[str]:
    """Return the texts with a rating among the replies to the last message, of all panes and attempts."""
    conversation = context.conversation
    question_id = conversation.node(conversation.turns[-1].id).parent
    answers = [answer for node in conversation.nodes if node.parent == question_id for answer in node.answers]
    return [answer.reply.text for answer in answers if answer.rating == rating]


def _rate_good(context: ChatContext, argument: str) -> None:
    """Append a reply as a training row; also a preference pair when a reply to the same message was rated bad."""
    messages, answer = _last_reply(context)
    rejected = [text for text in _replies_rated(context, "bad") if text != answer.reply.text]

    def append(provenance: Mapping[str, Any]) -> list[str]:
        rows = context.services.rows
        locations = [rows.add_training_row(messages, answer.reply.text, provenance)]
        if rejected:
            locations.append(rows.add_preference_pair(messages, answer.reply.text, rejected[-1], provenance))
        return locations

    _append_rows(context, answer, append, lambda: _set_rating(context, "good"))


def _rate_bad(context: ChatContext, argument: str) -> None:
    """Rate a reply as bad; append a preference pair when there is a better reply."""
    messages, answer = _last_reply(context)
    if answer.rating == "good":
        raise UsageError(f"this reply is a row of {context.services.rows.path('messages')}; take it out there first")
    chosen = [text for text in _replies_rated(context, "good") if text != answer.reply.text]
    if not chosen:
        _set_rating(context, "bad")
        context.info("noted; a pair is written when another reply to this message is /good, or this one is put right by /fix TEXT")
        return
    _append_rows(
        context,
        answer,
        lambda provenance: [context.services.rows.add_preference_pair(messages, chosen[-1], answer.reply.text, provenance)],
        lambda: _set_rating(context, "bad"),
    )


def _fix_reply(context: ChatContext, argument: str) -> None:
    """Replace a reply by a corrected text; append a training row and a preference pair."""
    messages, answer = _last_reply(context)
    if not argument:
        if not context.prefill_input(f"/fix {answer.reply.text}"):
            raise UsageError("the right reply is missing: /fix TEXT")
        return
    if argument == answer.reply.text.strip():
        raise UsageError("the reply says that already; /good writes it as it is")

    def append(provenance: Mapping[str, Any]) -> list[str]:
        provenance = {**provenance, "fixed": True}
        return [
            context.services.rows.add_training_row(messages, argument, provenance),
            context.services.rows.add_preference_pair(messages, argument, answer.reply.text, provenance),
        ]

    def replace_reply() -> None:
        conversation = context.conversation
        answers = list(conversation.path[-1].answers)
        fixed_answer = replace(answer, reply=Reply(argument), token_ids=(), choices=(), score=None, rating="good")
        answers[min(conversation.pane, len(answers) - 1)] = fixed_answer
        context.conversation = conversation.unanswered().answer(*answers)

    _append_rows(context, answer, append, replace_reply)


def _add_to_evalset(context: ChatContext, argument: str) -> None:
    """Append an evalset item: the last message, with the reply or the given text as gold."""
    messages, answer = _last_reply(context)
    _append_rows(
        context,
        answer,
        lambda provenance: [context.services.rows.add_evalset_item(messages, argument or answer.reply.text, provenance)],
        lambda: None,
    )


_command = partial(ChatCommand, topic="data")
COMMANDS = (
    _command("good", "save the last reply as a training row", _rate_good, unavailable_reason=why_no_reply),
    _command("bad", "save the last reply as the rejected one of a pair", _rate_bad, unavailable_reason=why_no_reply),
    _command("fix", "save a corrected reply: a training row and a pair", _fix_reply, "[TEXT]", unavailable_reason=why_no_reply),
    _command("gold", "save the last message as an item of an evalset", _add_to_evalset, "[TEXT]", unavailable_reason=why_no_reply),
)
