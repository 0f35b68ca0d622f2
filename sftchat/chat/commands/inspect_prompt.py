"""Commands that show the model's input: the rendered prompt, its tokens, and the training mask."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

from sftchat.chat.commands.token_view import Row, format_table, join_partial_characters, one_line, running_text
from sftchat.chat.context import ChatCommand, ChatContext, Fragments, Style
from sftchat.chat.conversation import Conversation, Turn
from sftchat.engine import Inspects, Request
from sftchat.errors import UsageError
from sftchat.text import pluralize
from sftchat.types import Message, Token

MAX_LISTED = 60
"""Maximum number of tokens listed one per line; the rest is only counted."""
T = TypeVar("T")


def look(context: ChatContext, title: str, job: Callable[[Inspects], T], done: Callable[[T], None]) -> None:
    """Run a job that inspects the focused model on its engine thread.

    Raises:
        UsageError: When the engine does not support inspection, for example behind a server.
    """
    if not isinstance(context.engine, Inspects):
        raise not_inspectable(context.focus.name)
    context.work(title, lambda engine, work: job(cast(Inspects, engine)), done)


def not_inspectable(model: str) -> UsageError:
    """Return the error for a model that does not support inspection."""
    return UsageError(f"model '{model}' cannot be looked into: only models that are loaded here can")


def request_of(context: ChatContext, conversation: Conversation, pane: int | None = None) -> Request:
    """Return the request of a pane for a conversation that ends with a user message; otherwise for its next message."""
    chosen = context.focus if pane is None else context.panes[pane]
    arguments = context.settings.template_arguments
    return Request("look", conversation.messages, sampling=context.sampling, adapter=chosen.adapter, template_arguments=arguments)


def last_turn(context: ChatContext, pane: int | None = None) -> tuple[Request, Turn]:
    """Return the last turn with a reply in a pane, and its request.

    Raises:
        UsageError: When there is no reply.
    """
    pane_index = context.conversation.pane if pane is None else pane
    conversation = context.conversation.seen_by(pane_index)
    turns = conversation.turns
    if not turns or turns[-1].answer is None or not turns[-1].answer.reply.text:
        raise UsageError("there is no reply to look at yet")
    return request_of(context, conversation.unanswered(), pane), turns[-1]


def last_question(context: ChatContext, text: str) -> Request:
    """Return the request for ``text``; for the last message when ``text`` is empty.

    Raises:
        UsageError: When ``text`` is empty and the conversation has no message.
    """
    conversation = context.conversation
    if text:
        return request_of(context, (conversation.unanswered().undo() if conversation.waiting else conversation).ask(text))
    if not conversation.head:
        raise UsageError("nothing was asked yet; give the message whose prompt you want to see")
    return request_of(context, conversation.unanswered())


def _prompt(context: ChatContext, argument: str) -> None:
    request = last_question(context, argument)

    def job(engine: Inspects) -> tuple[int, list[Token]]:
        tokens = engine.prompt_tokens(request)
        return len(tokens), join_partial_characters(engine, tokens)

    def show(count_and_tokens: tuple[int, list[Token]]) -> None:
        count, tokens = count_and_tokens
        shown = running_text(("special" if token.special else "", token) for token in tokens)
        context.info([*shown, ("note", f"▏{pluralize(count, 'token')}")])

    look(context, "rendering", job, show)


def _tokens(context: ChatContext, argument: str) -> None:
    everything = argument == "all"
    request = last_question(context, "" if everything else argument)
    turns = context.conversation.turns
    answer = turns[-1].answer if turns and not (argument and not everything) else None

    def job(engine: Inspects) -> tuple[Token, ...]:
        prompt = engine.prompt_tokens(request)
        if answer is None or not answer.token_ids:
            return prompt
        return engine.prompt_tokens(Request("look", request.messages, adapter=request.adapter, reply_ids=answer.token_ids,
                                            template_arguments=request.template_arguments))  # fmt: skip

    def show(tokens: tuple[Token, ...]) -> None:
        first = 0 if everything else max(0, len(tokens) - MAX_LISTED)
        rows: list[Row] = [
            (("note", str(first + number)), ("note", str(token.id)), ("special" if token.special else "", one_line(token)))
            for number, token in enumerate(tokens[first:], 1)
        ]
        head: Fragments = [("note", f"… {pluralize(first, 'token')} before; /tokens all lists them\n")] if first else []
        context.info([*head, *format_table(rows)])

    look(context, "tokenising", job, show)


def _mask(context: ChatContext, argument: str) -> None:
    """Show which tokens training on this conversation would learn."""
    conversation = context.conversation
    messages = list(conversation.unanswered().messages if conversation.waiting else conversation.messages)
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

    def show(rendered: tuple[int, int, list[Token]]) -> None:
        count, learned, tokens = rendered
        pieces: list[tuple[Style, str]] = []
        writes = False
        for token in tokens:
            if token.trained != writes:
                pieces.append(("note", "⟦" if token.trained else "⟧"))
                writes = token.trained
            pieces += running_text([("trained" if token.trained else "special" if token.special else "note", token)])
        end = ("⟧" if writes else "") + ("" if tokens[-1].text.endswith("\n") and not writes else "\n")
        context.info([*pieces, ("note", f"{end}learns {learned} of {pluralize(count, 'token')}, those in ⟦⟧")])

    look(context, "rendering", job, show)


_command = partial(ChatCommand, topic="looking inside")
COMMANDS = (
    _command("prompt", "show the rendered prompt of the last message, or of TEXT", _prompt, "[TEXT]"),
    _command("tokens", "list the tokens of the last turn, or of TEXT as a message", _tokens, "[TEXT|all]"),
    _command("mask", "show which tokens training would learn, also with TEXT as the reply", _mask, "[TEXT]"),
)
