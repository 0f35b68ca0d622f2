"""Commands that show token probabilities: of the tokens of a reply, and of their alternatives.

A local model computes them for any reply at any time. A server returns them only with the reply, when they were requested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import exp
from typing import TYPE_CHECKING

from sftchat.chat.commands.arguments import whole_number
from sftchat.chat.commands.inspect_prompt import inspection_error, make_request, run_inspection
from sftchat.chat.commands.token_view import (
    REPLACEMENT_CHARACTER,
    Row,
    format_likelihood,
    format_percent,
    format_table,
    group_partial_characters,
    join_partial_characters_by_bytes,
    one_line,
    running_text,
    style_of,
)
from sftchat.chat.context import ALTERNATIVES_PER_TOKEN, ChatCommand, ChatContext, Style
from sftchat.engine import Inspects, Request, Scores
from sftchat.errors import UsageError
from sftchat.text import pluralize
from sftchat.types import UNNUMBERED, Choice, Token

if TYPE_CHECKING:
    from sftchat.chat.conversation import Answer

LEAST_LIKELY_COUNT = 8
"""Number of least likely tokens that ``/probs`` lists."""


@dataclass(frozen=True)
class LastReply:
    """The last reply of a pane.

    Attributes:
        request: The request that it answers.
        answer: The reply and how it was generated.
    """

    request: Request
    answer: Answer

    @property
    def tokens_or_text(self) -> tuple[int, ...] | str:
        """The token ids of the reply, or its text when the engine returned no ids."""
        return self.answer.token_ids or self.answer.reply.text

    @property
    def ended(self) -> bool:
        """True when the model ended the reply, so that it includes the stop token."""
        return self.answer.reply.finish_reason == "stop"


def last_reply(context: ChatContext, pane: int | None = None) -> LastReply:
    """Return the last reply of a pane; of the focused one by default.

    Raises:
        UsageError: When there is no reply.
    """
    conversation = context.conversation.seen_by(context.conversation.pane if pane is None else pane)
    turns = conversation.turns
    if not turns or turns[-1].answer is None or not turns[-1].answer.reply.text:
        raise UsageError("there is no reply to look at yet")
    return LastReply(make_request(context, conversation.unanswered(), pane), turns[-1].answer)


@dataclass(frozen=True)
class _ReplyTokens:
    """A reply with probabilities.

    Attributes:
        choices: Its tokens.
        pieces: Its text in readable pieces, each in the style of the probability of its first token.
    """

    choices: tuple[Choice, ...]
    pieces: tuple[tuple[Style, Token], ...]


def _compute_probabilities(engine: Inspects, reply: LastReply) -> _ReplyTokens:
    choices = engine.choices(reply.request, reply.tokens_or_text, ended=reply.ended, alternatives=ALTERNATIVES_PER_TOKEN)
    pieces: list[tuple[Style, Token]] = []
    start = 0
    for token, size in group_partial_characters(engine, [choice.token for choice in choices]):
        pieces.append((style_of(exp(choices[start].logprob)), token))
        start += size
    return _ReplyTokens(choices, tuple(pieces))


def _get_probabilities(context: ChatContext, show: Callable[[_ReplyTokens], None]) -> None:
    """Compute the probabilities of the last reply on the engine thread, or take those that a server returned, and call ``show``.

    Raises:
        UsageError: When neither is possible; the message says what to do.
    """
    reply = last_reply(context)
    if isinstance(context.engine, Inspects):
        run_inspection(context, "computing probabilities", lambda engine: _compute_probabilities(engine, reply), show)
        return
    choices = reply.answer.choices
    if choices:
        show(_ReplyTokens(choices, tuple(join_partial_characters_by_bytes(choices))))
        return
    if not isinstance(context.engine, Scores):
        raise inspection_error(context.focus.name)
    if context.settings.logprobs:
        raise UsageError("no log-probabilities came with this reply")
    raise UsageError(
        "no log-probabilities were asked for with this reply; '/probs on' asks for them from the next on, then '/regen' replies again"
    )


def _show_probabilities(context: ChatContext, argument: str) -> None:
    """Show the last reply with token probabilities, or request them from servers for the next reply."""
    if argument in ("on", "off"):
        context.settings = replace(context.settings, logprobs=argument == "on")
        context.info(f"servers are asked for log-probabilities: {argument}")
        return
    if argument not in ("", "all"):
        raise UsageError(f"/probs is '{argument}', must be 'all', 'on' or 'off'")

    def show(tokens: _ReplyTokens) -> None:
        indices = list(range(len(tokens.choices)))
        if argument != "all":
            indices = sorted(sorted(indices, key=lambda index: tokens.choices[index].logprob)[:LEAST_LIKELY_COUNT])
        rows = [_probability_row(index + 1, tokens.choices[index]) for index in indices]
        text = running_text((style, token) for style, token in tokens.pieces if not token.special)
        title = "the least likely tokens, '/probs all' lists all:\n" if len(rows) < len(tokens.choices) else ""
        context.info([*text, ("", "\n\n"), ("note", title), *format_table(rows), ("note", f"\n{format_likelihood(tokens.choices)}")])

    _get_probabilities(context, show)


def _probability_row(position: int, choice: Choice) -> Row:
    """Return position, probability and token, and the most likely alternative if that is another token."""
    probability = exp(choice.logprob)
    row: Row = (("note", str(position)), (style_of(probability), format_percent(probability)), ("", one_line(choice.token)))
    if not choice.rank or not choice.alternatives:
        return row
    token, logprob = choice.alternatives[0]
    return (*row, ("note", f"rather {one_line(token)} {format_percent(exp(logprob)).strip()}"))


def _show_alternatives(context: ChatContext, argument: str) -> None:
    """Show the alternatives at a position of the last reply."""
    position = whole_number(argument, "N")

    def show(tokens: _ReplyTokens) -> None:
        choice = _token_at(tokens.choices, position)
        rows: list[Row] = []
        for number, (token, logprob) in enumerate(choice.alternatives, 1):
            probability = exp(logprob)
            row: Row = (
                ("note", f"#{number}"),
                (style_of(probability), format_percent(probability)),
                ("special" if token.special else "", one_line(token)),
            )
            rows.append((*row, ("note", "← said")) if token == choice.token else row)
        from_server = choice.token.id == UNNUMBERED
        if choice.rank >= len(choice.alternatives) and choice.token not in [token for token, _ in choice.alternatives]:
            rank = f"#{choice.rank + 1}{'+' if from_server else ''}"  # a server's exact rank is unknown
            rows.append((("note", rank), ("rare", format_percent(exp(choice.logprob))), ("", one_line(choice.token)), ("note", "← said")))
        hint = "" if from_server else f"; '/fork {position} #K' goes on with another"
        context.info([("note", f"token {position} of {len(tokens.choices)}{hint}\n"), *format_table(rows)])

    _get_probabilities(context, show)


def _token_at(choices: tuple[Choice, ...], position: int) -> Choice:
    """Return the token at a position, counted from 1.

    Raises:
        UsageError: When the reply is shorter.
    """
    if position > len(choices):
        raise UsageError(f"N is {position}; the reply has {pluralize(len(choices), 'token')}")
    return choices[position - 1]


def _fork_reply(context: ChatContext, argument: str) -> None:
    """Replace the token at a position of the last reply and continue from there."""
    typed_position, _, replacement = argument.partition(" ")
    position = whole_number(typed_position, "N")
    if not replacement:
        raise UsageError("TOKEN is missing: what is to stand there, or #K for the Kth of '/why N'")
    reply = last_reply(context)

    def continue_from(prefix: tuple[str, tuple[int, ...]]) -> None:
        text, ids = prefix
        conversation = context.conversation
        # generate continues partial answers and keeps complete ones: those of the other panes count as complete
        answers = {
            pane: replace(answer, reply=replace(answer.reply, finish_reason="stop"))
            for pane, answer in enumerate(conversation.node(conversation.head).answers)
        }
        partial_reply = replace(reply.answer.reply, text=text, finish_reason="length", completion_tokens=len(ids))
        answers[conversation.pane] = replace(reply.answer, reply=partial_reply, token_ids=ids, choices=(), score=None)
        context.generate(conversation.unanswered(), answers)

    run_inspection(context, "computing probabilities", lambda engine: _replace_token(engine, reply, position, replacement), continue_from)


def _replace_token(engine: Inspects, reply: LastReply, position: int, replacement: str) -> tuple[str, tuple[int, ...]]:
    """Return text and token ids of a reply up to a position, whose token is replaced.

    Args:
        engine: The model of the reply.
        reply: The reply.
        position: Position from 1.
        replacement: ``#K`` for the Kth alternative, or any text.

    Raises:
        UsageError: When there is no such position or alternative, it ends the reply, or the text would end within a character.
    """
    adapter = reply.request.adapter
    choices = engine.choices(reply.request, reply.tokens_or_text, ended=reply.ended, alternatives=ALTERNATIVES_PER_TOKEN)
    choice = _token_at(choices, position)
    ids_before = [choice.token.id for choice in choices[: position - 1]]
    if replacement.startswith("#") and replacement[1:].isdecimal():
        number = int(replacement[1:])
        if not 1 <= number <= len(choice.alternatives):
            raise UsageError(f"TOKEN is '{replacement}'; '/why {position}' lists #1 to #{len(choice.alternatives)}")
        token, _ = choice.alternatives[number - 1]
        if token.special:
            raise UsageError(f"'{token.text}' ends the reply there; nothing would follow")
        ids = (*ids_before, token.id)
        text = engine.decode(ids, adapter)
    else:
        text = engine.decode(ids_before, adapter) + replacement
        replacement_tokens = engine.prompt_tokens(Request("look", prompt=replacement, adapter=adapter))
        ids = (*ids_before, *(token.id for token in replacement_tokens if not token.special))
    if REPLACEMENT_CHARACTER in text:
        raise UsageError(f"token {position} is in the middle of a character; fork before or after it")
    return text, ids


def _why_no_text(context: ChatContext) -> str:
    turns = context.conversation.turns
    return "" if turns and turns[-1].reply is not None and turns[-1].reply.text else "there is no reply to look at yet"


def _complete_probs(context: ChatContext, argument: str) -> Iterable[str]:
    return ("all", "on", "off")


TOPIC = "looking inside"
_command = partial(ChatCommand, topic=TOPIC)
COMMANDS = (
    _command(
        "probs",
        "show token probabilities of the last reply; on: also from servers",
        _show_probabilities,
        "[all|on|off]",
        _complete_probs,
    ),
    _command("why", "show the alternatives to token N of the last reply", _show_alternatives, "N", unavailable_reason=_why_no_text),
    _command(
        "fork", "continue from token N of the last reply with another token", _fork_reply, "N TOKEN|#K", unavailable_reason=_why_no_text
    ),
)
