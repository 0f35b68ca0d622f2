"""The command that shows how likely a given answer is to every model."""

from __future__ import annotations

from sftchat.chat.commands.inspect_probs import TOPIC, last_reply
from sftchat.chat.commands.inspect_prompt import closed, request_of
from sftchat.chat.commands.token_view import Row, likelihood, table
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.chat.engine_thread import JobHandle
from sftchat.engine import Engine, Inspects, Request, Scores
from sftchat.errors import SftchatError, UsageError
from sftchat.types import Choice


def _nll(context: ChatContext, argument: str) -> None:
    """Show how likely a given answer to the last message is to every model."""
    conversation = context.conversation
    if not conversation.head:
        raise UsageError("nothing was asked yet")
    _next_nll(context, _gold(context) if argument == "gold" else argument, 0, [])


def _gold(context: ChatContext) -> str:
    """The gold reply to the last message.

    Raises:
        UsageError: When there is none.
    """
    judge = context.desk.judge
    example = judge.find(context.conversation.unanswered().messages) if judge is not None else None
    if example is None or example.gold is None:
        raise UsageError("the last message is no item of an evalset; chat with --task, or give the answer: /likelihood TEXT")
    return example.gold


def _next_nll(context: ChatContext, text: str, column: int, found: list[Row]) -> None:
    """The column's model, then those after it. One that cannot tell says so in its row; alone it is an error."""
    if column == len(context.columns):
        context.say(table(found))
        return
    given: tuple[Request, str | tuple[int, ...], bool]
    if text:
        given = request_of(context, context.conversation.seen_by(column).unanswered(), column), text, True
    else:
        given = last_reply(context, column)
    request, reply, ended = given
    chosen = context.columns[column]
    local = isinstance(chosen.engine, Inspects)

    def show(result: tuple[Choice, ...] | SftchatError) -> None:
        if isinstance(result, SftchatError):
            if len(context.columns) == 1:
                raise result
            row: Row = (("", chosen.name), ("bad", str(result)))
        else:
            unended = "" if local or result[-1].token.special else "; the token that ends a reply is not among them"
            row = (("", chosen.name), ("note", likelihood(result) + unended))
        _next_nll(context, text, column + 1, [*found, row])

    def job(engine: Engine, work: JobHandle) -> tuple[Choice, ...] | SftchatError:
        assert isinstance(engine, Scores)
        said = reply if local or isinstance(reply, str) else ""
        try:
            return engine.choices(request, said, ended=ended)
        except SftchatError as error:
            return error

    answer = context.conversation.seen_by(column).turns[-1].answer
    if not text and not local and answer is not None and answer.choices:
        show(answer.choices)
    elif isinstance(chosen.engine, Scores):
        context.work("computing probabilities", job, show, column)
    else:
        show(closed(chosen.name))


COMMANDS = (
    ChatCommand(
        "likelihood",
        "show how likely TEXT, the gold answer or the last reply is to every model",
        _nll,
        "[gold|TEXT]",
        topic=TOPIC,
        aliases=("nll",),
    ),
)
