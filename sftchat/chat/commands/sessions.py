"""Commands that list, name, load and export sessions."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from sftchat._util.parsing import expand_user
from sftchat.chat.commands.arguments import complete_path_argument, shorten, whole_number, why_no_reply
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.errors import UsageError
from sftchat.text import pluralize

if TYPE_CHECKING:
    from sftchat.chat.sessions import Summary

LISTED_SESSIONS = 20
SESSION_NAME = re.compile(r"[^\s/.~0-9][^\s/]*")
FILE_AND_WORD = re.compile(r"(.+?)(?:\s+(\S+))?", re.DOTALL)
"""A path, and optionally its row or format: the last word. Matches any argument that is not empty."""


def _why_not_saved(context: ChatContext) -> str:
    store = context.services.session.store
    return "" if store is not None and not store.broken else "conversations are not kept here"


def _list_sessions(context: ChatContext, argument: str) -> None:
    session = context.services.session
    assert session.store is not None
    summaries = session.store.list_sessions(whole_number(argument, "N", LISTED_SESSIONS))
    context.info(format_sessions(summaries, session.id) or "no sessions yet")


def format_sessions(summaries: Iterable[Summary], current: int) -> str:
    """Format sessions, one line each, with a mark at the current one."""
    lines = []
    for summary in summaries:
        mark = "*" if summary.id == current else " "
        name = f" {summary.name}" if summary.name else ""
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(summary.used))
        turns, models = pluralize(summary.metadata.turns, "turn"), ", ".join(summary.metadata.models)
        lines.append(f"{mark} {summary.id}{name}  {used}  {turns} with {models}: {shorten(summary.metadata.title)}")
    return "\n".join(lines)


def _name_session(context: ChatContext, argument: str) -> None:
    session = context.services.session
    assert session.store is not None
    if not SESSION_NAME.fullmatch(argument):
        subject = f"session name '{argument}'" if argument else "the name is missing: a name"
        raise UsageError(
            f"{subject} must be one word that begins with a letter and has no '/'; conversations are kept anyway, /export writes a file"
        )
    session.store.rename(session.id, argument)
    context.info(f"this conversation is '{argument}' now: 'sftchat chat --session {argument}' or /load {argument} goes on with it")


def _load_session_or_file(context: ChatContext, argument: str) -> None:
    if not argument:
        raise UsageError("what is to be loaded is missing: the name or number of a session, or a file")
    session = context.services.session
    summary = session.store.find(argument) if session.store is not None else None
    if session.store is None or summary is None:
        _load_file(context, argument)
        return
    from sftchat.chat.sessions import restore

    conversation, settings = restore(session.store, summary, len(context.panes))
    session.continue_session(summary, conversation)
    context.conversation = conversation
    context.settings = settings
    with_models = ", ".join(summary.metadata.models)
    context.info(f"session {argument}: {pluralize(len(conversation.turns), 'turn')}, said with {with_models}; /history shows it")


def _load_file(context: ChatContext, argument: str) -> None:
    """Continue the conversation of a file in a new session."""
    file, row = FILE_AND_WORD.fullmatch(argument).groups()  # type: ignore[union-attr]
    path = expand_user(file)
    if not path.is_file():
        raise UsageError(f"no session and no file '{argument}'; /sessions lists the sessions")
    from sftchat.chat.export import read_conversation

    conversation, unanswered = read_conversation(path, whole_number(row or "", "the row", 1))
    context.services.session.continue_session(None, None)
    context.conversation = conversation
    note = ""
    if unanswered and context.prefill_input(unanswered):
        note = f"; its last message waits for you to send it: {shorten(unanswered)}"
    context.info(f"{path}: {pluralize(len(conversation.turns), 'turn')}{note}; /history shows it")


def _complete_session(context: ChatContext, argument: str) -> Iterable[str]:
    store = context.services.session.store
    summaries = store.list_sessions(LISTED_SESSIONS) if store is not None else ()
    return [*(summary.name or str(summary.id) for summary in summaries), *complete_path_argument(context, argument)]


def _export_conversation(context: ChatContext, argument: str) -> None:
    from sftchat.chat.export import export

    if not argument:
        raise UsageError("the file is missing: /export FILE [messages|sharegpt|markdown]")
    name, format = FILE_AND_WORD.fullmatch(argument).groups()  # type: ignore[union-attr]
    path = expand_user(name)
    written_format = export(context.conversation, path, format or "")
    context.info(f"{pluralize(len(context.conversation.turns), 'turn')} written to {path} as {written_format}")


_command = partial(ChatCommand, topic="sessions")
COMMANDS = (
    _command(
        "sessions", "list the most recent conversations", _list_sessions, "[N]", allowed_while_busy=True, unavailable_reason=_why_not_saved
    ),
    _command(
        "save",
        "name this conversation",
        _name_session,
        "NAME",
        unavailable_reason=lambda context: why_no_reply(context) or _why_not_saved(context),
    ),
    _command("load", "open a conversation, or row N of a file", _load_session_or_file, "NAME|FILE [N]", _complete_session),
    _command(
        "export",
        "write the conversation to a file: messages, sharegpt or markdown",
        _export_conversation,
        "FILE [FORMAT]",
        complete_path_argument,
        unavailable_reason=why_no_reply,
    ),
)
