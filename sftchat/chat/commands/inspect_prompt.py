"""Commands that show the model's input: the rendered prompt, its tokens, and the training mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from sftchat.chat.commands.token_view import Row, format_table, join_partial_characters, one_line, running_text
from sftchat.chat.context import ChatCommand, ChatContext, Fragments, Style
from sftchat.engine import Inspects, Request
from sftchat.errors import UsageError
from sftchat.text import pluralize
from sftchat.types import Message, Token

if TYPE_CHECKING:
    from sftchat.chat.conversation import Conversation

MAX_LISTED = 60
"""Maximum number of tokens listed one per line; the rest is only counted."""
T = TypeVar("T")


def run_inspection(context: ChatContext, title: str, job: Callable[[Inspects], T], done: Callable[[T], None]) -> None:
    """Run a job that inspects the focused model on its engine thread; the other arguments are as in ``ChatContext.work``.

    Raises:
        UsageError: When the engine does not support inspection, for example behind a server.
    """
    if not isinstance(context.engine, Inspects):
        raise inspection_error(context.focus.name)
    context.work(title, lambda engine, handle: job(cast(Inspects, engine)), done)


def inspection_error(model: str) -> UsageError:
    """Return the error for an engine that does not support inspection."""
    return UsageError(f"model '{model}' cannot be looked into: only models that are loaded here can")


def make_request(context: ChatContext, conversation: Conversation, pane: int | None = None) -> Request:
    """Return a request with the messages of a conversation, for a pane; for the focused one by default."""
    model = context.focus if pane is None else context.panes[pane]
    arguments = context.settings.template_arguments
    return Request("look", conversation.messages, sampling=context.sampling, adapter=model.adapter, template_arguments=arguments)


def question_request(context: ChatContext, text: str) -> Request:
    """Return the request that asks ``text`` as the next message; the last message when ``text`` is empty.

    Raises:
        UsageError: When ``text`` is empty and the conversation has no message.
    """
    conversation = context.conversation
    if text:
        if conversation.waiting:  # the text takes the place of the message without a reply
            conversation = conversation.undo()
        return make_request(context, conversation.ask(text))
    if not conversation.head:
        raise UsageError("nothing was asked yet; give the message whose prompt you want to see")
    return make_request(context, conversation.unanswered())


def _show_prompt(context: ChatContext, argument: str) -> None:
    request = question_request(context, argument)

    def job(engine: Inspects) -> tuple[int, list[Token]]:
        tokens = engine.prompt_tokens(request)
        return len(tokens), join_partial_characters(engine, tokens)

    def show(result: tuple[int, list[Token]]) -> None:
        token_count, readable_tokens = result
        text = running_text(("special" if token.special else "", token) for token in readable_tokens)
        context.info([*text, ("note", f"▏{pluralize(token_count, 'token')}")])

    run_inspection(context, "rendering", job, show)


def _list_tokens(context: ChatContext, argument: str) -> None:
    """List the tokens of the last prompt and its reply, or of the prompt for a text; at most ``MAX_LISTED`` without ``all``."""
    list_all = argument == "all"
    text = "" if list_all else argument
    request = question_request(context, text)
    turns = context.conversation.turns
    answer = turns[-1].answer if turns and not text else None
    if answer is not None and answer.token_ids:
        request = replace(request, reply_ids=answer.token_ids)

    def show(tokens: tuple[Token, ...]) -> None:
        left_out = 0 if list_all else max(0, len(tokens) - MAX_LISTED)
        rows: list[Row] = [
            (("note", str(number)), ("note", str(token.id)), ("special" if token.special else "", one_line(token)))
            for number, token in enumerate(tokens[left_out:], left_out + 1)
        ]
        heading: Fragments = [("note", f"… {pluralize(left_out, 'token')} before; /tokens all lists them\n")] if left_out else []
        context.info([*heading, *format_table(rows)])

    run_inspection(context, "tokenising", lambda engine: engine.prompt_tokens(request), show)


def _show_mask(context: ChatContext, argument: str) -> None:
    """Show which tokens training on this conversation would learn; a text replaces the last reply."""
    conversation = context.conversation
    messages = list(conversation.messages)
    if argument:
        if not conversation.head:
            raise UsageError("nothing was asked yet")
        messages = [*conversation.unanswered().messages, Message(role="assistant", content=argument)]
    if not any(message["role"] == "assistant" for message in messages):
        raise UsageError("nothing was answered yet, so there is nothing that training would learn")

    adapter = context.focus.adapter

    def job(engine: Inspects) -> tuple[int, int, list[Token]]:
        tokens = engine.trained_tokens(messages, adapter)
        return len(tokens), sum(token.trained for token in tokens), join_partial_characters(engine, tokens)

    def show(result: tuple[int, int, list[Token]]) -> None:
        token_count, trained_count, readable_tokens = result
        pieces: list[tuple[Style, str]] = []
        in_brackets = False
        for token in readable_tokens:
            if token.trained != in_brackets:
                pieces.append(("note", "⟦" if token.trained else "⟧"))
                in_brackets = token.trained
            style: Style = "special" if token.special else "note"
            pieces += running_text([("trained" if token.trained else style, token)])
        if in_brackets:
            pieces.append(("note", "⟧\n"))
        elif not readable_tokens[-1].text.endswith("\n"):
            pieces.append(("note", "\n"))
        context.info([*pieces, ("note", f"learns {trained_count} of {pluralize(token_count, 'token')}, those in ⟦⟧")])

    run_inspection(context, "rendering", job, show)


_command = partial(ChatCommand, topic="looking inside")
COMMANDS = (
    _command("prompt", "show the rendered prompt of the last message, or of TEXT", _show_prompt, "[TEXT]"),
    _command(
        "tokens", "list the last 60 tokens of prompt and reply, or of the prompt for TEXT; all: every token", _list_tokens, "[TEXT|all]"
    ),
    _command("mask", "show which tokens training would learn, also with TEXT as the reply", _show_mask, "[TEXT]"),
)
