"""Commands that show token probabilities: of the tokens of a reply, and of their alternatives.

A local model computes them for any reply at any time. A server returns log-probabilities with a reply only, when they were requested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from math import exp

from sftchat.chat.commands.arguments import whole_number
from sftchat.chat.commands.inspect_prompt import last_turn, look, not_inspectable
from sftchat.chat.commands.token_view import (
    Row,
    format_likelihood,
    format_percent,
    format_table,
    join_partial_characters,
    join_partial_characters_by_bytes,
    one_line,
    running_text,
    style_of,
)
from sftchat.chat.context import ChatCommand, ChatContext, Style
from sftchat.chat.turn import ALTERNATIVES_PER_TOKEN
from sftchat.engine import Inspects, Request, Scores
from sftchat.errors import UsageError
from sftchat.text import pluralize
from sftchat.types import UNNUMBERED, Choice, Token

LEAST_LIKELY_COUNT = 8
"""Number of least likely tokens that ``/probs`` lists."""


@dataclass(frozen=True)
class _ReplyTokens:
    """A reply with probabilities: its tokens, and its text in readable pieces, each with the probability of its first token."""

    choices: tuple[Choice, ...]
    pieces: tuple[tuple[Style, Token], ...]


def _inspect_reply(engine: Inspects, request: Request, reply: str | tuple[int, ...], ended: bool) -> _ReplyTokens:
    choices = engine.choices(request, reply, ended=ended, alternatives=ALTERNATIVES_PER_TOKEN)
    pieces: list[tuple[Style, Token]] = []
    position = 0
    for token in (readable := join_partial_characters(engine, [choice.token for choice in choices])):
        pieces.append((style_of(exp(choices[position].logprob)), token))
        position += _token_count(engine, token, [choice.token for choice in choices[position:]]) if len(readable) < len(choices) else 1
    return _ReplyTokens(choices, tuple(pieces))


def _token_count(engine: Inspects, token: Token, following: list[Token]) -> int:
    """Return how many tokens a readable piece consists of."""
    if following[0].text == token.text:
        return 1
    return next(size for size in range(2, len(following) + 1) if engine.decode([part.id for part in following[:size]]) == token.text)


def last_reply(context: ChatContext, pane: int | None = None) -> tuple[Request, str | tuple[int, ...], bool]:
    """Return the request of the last reply, the reply, and whether the model ended it."""
    request, turn = last_turn(context, pane)
    answer = turn.answer
    assert answer is not None
    return request, answer.token_ids or answer.reply.text, answer.reply.finish_reason == "stop"


def _look_at_reply(context: ChatContext, show: Callable[[_ReplyTokens], None]) -> None:
    """Compute the probabilities of the last reply on the engine thread, or use those that a server returned.

    Raises:
        UsageError: When neither is possible; the message says what to do.
    """
    request, reply, ended = last_reply(context)
    chosen = context.focus
    if isinstance(chosen.engine, Inspects):
        look(context, "computing probabilities", lambda engine: _inspect_reply(engine, request, reply, ended), show)
        return
    answer = last_turn(context)[1].answer
    if answer is not None and answer.choices:
        show(_ReplyTokens(answer.choices, tuple(join_partial_characters_by_bytes(answer.choices))))
        return
    if not isinstance(chosen.engine, Scores):
        raise not_inspectable(chosen.name)
    if context.settings.logprobs:
        raise UsageError("no log-probabilities came with this reply")
    raise UsageError(
        "no log-probabilities were asked for with this reply; '/probs on' asks for them from the next on, then '/regen' replies again"
    )


def _ask_for_logprobs(context: ChatContext, wanted: bool) -> None:
    context.settings = replace(context.settings, logprobs=wanted)
    context.info(f"servers are asked for log-probabilities: {'on' if wanted else 'off'}")


def _probs(context: ChatContext, argument: str) -> None:
    """Show the last reply with token probabilities, or request them from servers for the next reply."""
    if argument in ("on", "off"):
        _ask_for_logprobs(context, argument == "on")
        return
    if argument not in ("", "all"):
        raise UsageError(f"/probs is '{argument}', must be 'all', 'on' or 'off'")

    def show(tokens: _ReplyTokens) -> None:
        numbered = list(enumerate(tokens.choices, 1))
        listed = numbered if argument == "all" else sorted(sorted(numbered, key=lambda item: item[1].logprob)[:LEAST_LIKELY_COUNT])
        rows: list[Row] = [
            (
                ("note", str(position)),
                (style_of(exp(choice.logprob)), format_percent(exp(choice.logprob))),
                ("", one_line(choice.token)),
                *_likelier_token(choice),
            )
            for position, choice in listed
        ]
        text = [(style, token) for style, token in tokens.pieces if not token.special]
        title = "" if argument == "all" or len(listed) == len(numbered) else "the least likely tokens, '/probs all' lists all:\n"
        context.info(
            [*running_text(text), ("", "\n\n"), ("note", title), *format_table(rows), ("note", f"\n{format_likelihood(tokens.choices)}")]
        )

    _look_at_reply(context, show)


def _likelier_token(choice: Choice) -> Row:
    """Return the most likely alternative, if there is one."""
    if not choice.rank or not choice.alternatives:
        return ()
    token, logprob = choice.alternatives[0]
    return (("note", f"rather {one_line(token)} {format_percent(exp(logprob)).strip()}"),)


def _why(context: ChatContext, argument: str) -> None:
    """Show the alternatives at a position of the last reply."""
    position = whole_number(argument, "N")

    def show(tokens: _ReplyTokens) -> None:
        choice = _token_at(tokens.choices, position)
        rows: list[Row] = []
        for number, (token, logprob) in enumerate(choice.alternatives, 1):
            probability = exp(logprob)
            taken = token == choice.token
            marker: Row = (("note", "← said"),) if taken else ()
            rows.append(
                (
                    ("note", f"#{number}"),
                    (style_of(probability), format_percent(probability)),
                    ("special" if token.special else "", one_line(token)),
                    *marker,
                )
            )
        served = choice.token.id == UNNUMBERED
        if choice.rank >= len(choice.alternatives) and choice.token not in [token for token, _ in choice.alternatives]:
            beyond = f"#{choice.rank + 1}{'+' if served else ''}"  # a server's exact rank is unknown
            rows.append((("note", beyond), ("rare", format_percent(exp(choice.logprob))), ("", one_line(choice.token)), ("note", "← said")))
        fork = "" if served else f"; '/fork {position} #K' goes on with another"
        context.info([("note", f"token {position} of {len(tokens.choices)}{fork}\n"), *format_table(rows)])

    _look_at_reply(context, show)


def _token_at(choices: tuple[Choice, ...], position: int) -> Choice:
    """Return the token at a position.

    Raises:
        UsageError: When the position does not exist.
    """
    if position > len(choices):
        raise UsageError(f"N is {position}; the reply has {pluralize(len(choices), 'token')}")
    return choices[position - 1]


def _fork(context: ChatContext, argument: str) -> None:
    """Replace the token at a position of the last reply and continue from there."""
    number, _, replacement = argument.partition(" ")
    position = whole_number(number, "N")
    if not replacement:
        raise UsageError("TOKEN is missing: what is to stand there, or #K for the Kth of '/why N'")
    request, reply, ended = last_reply(context)
    _, turn = last_turn(context)
    answer = turn.answer
    assert answer is not None

    def job(engine: Inspects) -> tuple[str, tuple[int, ...]]:
        choices = engine.choices(request, reply, ended=ended, alternatives=ALTERNATIVES_PER_TOKEN)
        choice = _token_at(choices, position)
        before = [choice.token.id for choice in choices[: position - 1]]
        if replacement.startswith("#") and replacement[1:].isdecimal():
            if not 1 <= int(replacement[1:]) <= len(choice.alternatives):
                raise UsageError(f"TOKEN is '{replacement}'; '/why {position}' lists #1 to #{len(choice.alternatives)}")
            other = choice.alternatives[int(replacement[1:]) - 1][0]
            if other.special:
                raise UsageError(f"'{other.text}' ends the reply there; nothing would follow")
            ids = (*before, other.id)
            text = engine.decode(ids, request.adapter)
        else:
            text = engine.decode(before, request.adapter) + replacement
            written = engine.prompt_tokens(Request("look", prompt=replacement, adapter=request.adapter))
            ids = (*before, *(token.id for token in written if not token.special))
        if "\ufffd" in text:
            raise UsageError(f"token {position} is in the middle of a character; fork before or after it")
        return text, ids

    def go(forked: tuple[str, tuple[int, ...]]) -> None:
        text, ids = forked
        conversation = context.conversation
        focus = conversation.pane
        node = conversation.node(conversation.head)
        cut = replace(
            answer,
            reply=replace(answer.reply, text=text, finish_reason="length", completion_tokens=len(ids)),
            token_ids=ids,
            choices=(),
            score=None,
        )
        others = {
            pane: replace(other, reply=replace(other.reply, finish_reason="stop"))
            for pane, other in enumerate(node.answers)
            if pane != focus
        }
        context.generate(conversation.unanswered(), {**others, focus: cut})

    look(context, "computing probabilities", job, go)


def _no_reply(context: ChatContext) -> str:
    turns = context.conversation.turns
    return "" if turns and turns[-1].reply is not None and turns[-1].reply.text else "there is no reply to look at yet"


def _probs_words(context: ChatContext, argument: str) -> Iterable[str]:
    return ("all", "on", "off")


TOPIC = "looking inside"
_command = partial(ChatCommand, topic=TOPIC)
COMMANDS = (
    _command(
        "probs",
        "show token probabilities of the last reply; on: also from servers",
        _probs,
        "[all|on|off]",
        _probs_words,
    ),
    _command("why", "show the alternatives to token N of the last reply", _why, "N", unavailable_reason=_no_reply),
    _command("fork", "continue from token N of the last reply with another token", _fork, "N TOKEN|#K", unavailable_reason=_no_reply),
)
