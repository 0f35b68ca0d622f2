"""Command that shows the likelihood of a given reply under each model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sftchat.chat.commands.inspect_probs import TOPIC, LastReply, last_reply
from sftchat.chat.commands.inspect_prompt import inspection_error, make_request
from sftchat.chat.commands.token_view import Row, format_likelihood, format_table
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.engine import Engine, Inspects, Scores
from sftchat.errors import SftchatError, UsageError
from sftchat.types import Choice, Reply

if TYPE_CHECKING:
    from sftchat.chat.pane import JobHandle


def _show_likelihoods(context: ChatContext, argument: str) -> None:
    conversation = context.conversation
    if not conversation.head:
        raise UsageError("nothing was asked yet")
    _add_pane(context, _find_gold_reply(context) if argument == "gold" else argument, 0, [])


def _find_gold_reply(context: ChatContext) -> str:
    """Return the gold reply to the last message.

    Raises:
        UsageError: When there is none.
    """
    scorer = context.services.scorer
    example = scorer.find_item(context.conversation.unanswered().messages) if scorer is not None else None
    if example is None or example.gold is None:
        raise UsageError("the last message is no item of an evalset; chat with --task, or give the answer: /likelihood TEXT")
    return example.gold


def _add_pane(context: ChatContext, text: str, pane: int, rows: list[Row]) -> None:
    """Compute the likelihood for one pane, then for the next ones; after the last, show a table.

    A model that does not support it gets a row with the error; if it is the only model, the error is raised.

    Args:
        context: The chat.
        text: The reply to compute the likelihood of; empty for the last reply of each pane.
        pane: Index of the pane.
        rows: Table rows of the panes before.
    """
    from sftchat.chat.conversation import Answer

    if pane == len(context.panes):
        context.info(format_table(rows))
        return
    conversation, model = context.conversation.seen_by(pane), context.panes[pane]
    reply = LastReply(make_request(context, conversation.unanswered(), pane), Answer(Reply(text))) if text else last_reply(context, pane)
    local = isinstance(model.engine, Inspects)

    def show(result: tuple[Choice, ...] | SftchatError) -> None:
        if isinstance(result, SftchatError):
            if len(context.panes) == 1:
                raise result
            row: Row = (("", model.name), ("bad", str(result)))
        else:
            stop_token_note = "" if local or result[-1].token.special else "; the token that ends a reply is not among them"
            row = (("", model.name), ("note", format_likelihood(result) + stop_token_note))
        _add_pane(context, text, pane + 1, [*rows, row])

    def job(engine: Engine, handle: JobHandle) -> tuple[Choice, ...] | SftchatError:
        assert isinstance(engine, Scores)
        tokens_or_text = reply.tokens_or_text if local else reply.answer.reply.text  # a server scores only text
        try:
            return engine.choices(reply.request, tokens_or_text, ended=reply.ended)
        except SftchatError as error:
            return error

    if not local and reply.answer.choices:
        show(reply.answer.choices)
    elif isinstance(model.engine, Scores):
        context.work("computing probabilities", job, show, pane)
    else:
        show(inspection_error(model.name))


_command = partial(ChatCommand, topic=TOPIC)
COMMANDS = (
    _command(
        "likelihood",
        "show how likely TEXT, the gold or the last reply is, per model",
        _show_likelihoods,
        "[gold|TEXT]",
        aliases=("nll",),
    ),
)
