"""Command that shows the likelihood of a given reply under each model."""

from __future__ import annotations

from functools import partial

from sftchat.chat.commands.inspect_probs import TOPIC, last_reply
from sftchat.chat.commands.inspect_prompt import not_inspectable, request_of
from sftchat.chat.commands.token_view import Row, format_likelihood, format_table
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.chat.pane import JobHandle
from sftchat.engine import Engine, Inspects, Scores
from sftchat.errors import SftchatError, UsageError
from sftchat.types import Choice


def _likelihood(context: ChatContext, argument: str) -> None:
    conversation = context.conversation
    if not conversation.head:
        raise UsageError("nothing was asked yet")
    _next_likelihood(context, _gold(context) if argument == "gold" else argument, 0, [])


def _gold(context: ChatContext) -> str:
    """Return the gold reply to the last message.

    Raises:
        UsageError: When there is none.
    """
    scorer = context.services.scorer
    example = scorer.find_item(context.conversation.unanswered().messages) if scorer is not None else None
    if example is None or example.gold is None:
        raise UsageError("the last message is no item of an evalset; chat with --task, or give the answer: /likelihood TEXT")
    return example.gold


def _next_likelihood(context: ChatContext, text: str, pane: int, rows: list[Row]) -> None:
    """Compute the likelihood for one pane, then for the next ones. A model that does not support it gets a row that says so; if it is the
    only model, an error.
    """
    if pane == len(context.panes):
        context.info(format_table(rows))
        return
    conversation, chosen = context.conversation.seen_by(pane), context.panes[pane]
    request, reply, ended = (request_of(context, conversation.unanswered(), pane), text, True) if text else last_reply(context, pane)
    local = isinstance(chosen.engine, Inspects)

    def show(result: tuple[Choice, ...] | SftchatError) -> None:
        if isinstance(result, SftchatError):
            if len(context.panes) == 1:
                raise result
            row: Row = (("", chosen.name), ("bad", str(result)))
        else:
            unended = "" if local or result[-1].token.special else "; the token that ends a reply is not among them"
            row = (("", chosen.name), ("note", format_likelihood(result) + unended))
        _next_likelihood(context, text, pane + 1, [*rows, row])

    def job(engine: Engine, work: JobHandle) -> tuple[Choice, ...] | SftchatError:
        assert isinstance(engine, Scores)
        tokens_or_text = reply if local or isinstance(reply, str) else ""
        try:
            return engine.choices(request, tokens_or_text, ended=ended)
        except SftchatError as error:
            return error

    answer = conversation.turns[-1].answer
    if not text and not local and answer is not None and answer.choices:
        show(answer.choices)
    elif isinstance(chosen.engine, Scores):
        context.work("computing probabilities", job, show, pane)
    else:
        show(not_inspectable(chosen.name))


_command = partial(ChatCommand, topic=TOPIC)
COMMANDS = (
    _command(
        "likelihood",
        "show how likely TEXT, the gold or the last reply is, per model",
        _likelihood,
        "[gold|TEXT]",
        aliases=("nll",),
    ),
)
