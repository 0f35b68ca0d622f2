"""Commands that move in the conversation tree; nodes are never deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from sftchat.chat.commands.arguments import shorten, whole_number, why_no_message, why_no_reply
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.errors import UsageError
from sftchat.text import pluralize


def _system(context: ChatContext, argument: str) -> None:
    if not argument:
        context.info(context.conversation.system or "no system prompt; /system TEXT sets one")
    elif argument == "off":
        context.conversation = context.conversation.with_system("")
        context.info("no system prompt from the next message on")
    else:
        context.conversation = context.conversation.with_system(argument)
        context.info("system prompt set, from the next message on")


def _reset(context: ChatContext, argument: str) -> None:
    has_turns = bool(context.conversation.turns)
    context.conversation = context.conversation.reset()
    system = "; the system prompt stays" if context.conversation.system else ""
    context.info(f"the conversation starts again{system}{'; /branches leads back' if has_turns else ''}")


def _undo(context: ChatContext, argument: str) -> None:
    context.conversation = context.conversation.undo(whole_number(argument, "N", 1))
    context.info(_position(context))


def _redo(context: ChatContext, argument: str) -> None:
    context.conversation = context.conversation.redo()
    context.info(_position(context))


def _regen(context: ChatContext, argument: str) -> None:
    """Generate the last reply again; also repeats failed attempts."""
    conversation = context.conversation
    turn = conversation.turns[-1] if conversation.turns else None
    # after a failed attempt the head is that attempt, which is not in turns
    if turn is not None and turn.answer is not None and turn.id == conversation.head and not context.sampling.temperature:
        answer, focus = turn.answer, context.focus
        if (answer.model, answer.adapter, answer.sampling) == (focus.name, focus.adapter, context.sampling):
            context.info("greedy: the model will say the same; '/set temperature 0.7' lets it vary")
    context.generate(conversation.unanswered())


def _edit(context: ChatContext, argument: str) -> None:
    """Change an earlier message, on a new branch."""
    conversation = context.conversation
    typed_number, text = re.fullmatch(r"(?:(\d+)(?::|$)\s*)?(.*)", argument, re.DOTALL).groups()  # type: ignore[union-attr]
    number = whole_number(typed_number or "", "N", len(conversation.turns))
    if number > len(conversation.turns):
        raise UsageError(f"there is no turn {number}: the conversation has {len(conversation.turns)}")
    turn = conversation.turns[number - 1]
    if text:
        question = conversation.node(conversation.node(turn.id).parent)
        context.generate(conversation.go(question.parent).ask(text))
    elif not context.prefill_input(f"/edit {f'{typed_number}: ' if typed_number else ''}{turn.question}"):
        raise UsageError("the new text is missing: /edit N: TEXT")


def _continue(context: ChatContext, argument: str) -> None:
    conversation = context.conversation
    context.generate(conversation.unanswered(), dict(enumerate(conversation.path[-1].answers)))


def _not_partial(context: ChatContext) -> str:
    """Return why the last reply cannot be continued."""
    path = context.conversation.path
    if not path or not path[-1].answers:
        return "there is no reply yet"
    return "" if any(answer.partial for answer in path[-1].answers) else "the reply is complete; only one that was cut can go on"


def _branch(context: ChatContext, argument: str) -> None:
    """Go back to the end of a turn, to start a new branch there."""
    conversation = context.conversation
    number = whole_number(argument, "N", least=0)
    if number > len(conversation.turns):
        raise UsageError(f"there is no turn {number}: the conversation has {len(conversation.turns)}")
    context.conversation = conversation.go(conversation.turns[number - 1].id if number else 0)
    context.info(f"{_position(context)}; what you say next is a new branch")


def _branches(context: ChatContext, argument: str) -> None:
    conversation = context.conversation
    if argument:
        chosen = whole_number(argument, "N")
        if chosen > len(conversation.leaves):
            raise UsageError(f"there is no branch {chosen}: the conversation has {len(conversation.leaves)}")
        context.conversation = conversation.go(conversation.leaves[chosen - 1])
        context.info(_position(context))
        return
    lines = []
    for number, end in enumerate(conversation.leaves, start=1):
        turns = conversation.turns_to(end)
        last = f"{shorten(turns[-1].question)} → {shorten(turns[-1].reply.text)}" if turns and turns[-1].reply else "no reply"
        lines.append(f"{'*' if end == conversation.head else ' '} {number}  {pluralize(len(turns), 'turn')}: {last}")
    context.info("\n".join(lines))


def _branch_numbers(context: ChatContext, argument: str) -> Iterable[str]:
    return [str(number) for number in range(1, len(context.conversation.leaves) + 1)]


def _turn_numbers(context: ChatContext, argument: str) -> Iterable[str]:
    return [str(number) for number in range(1, len(context.conversation.turns) + 1)]


def _history(context: ChatContext, argument: str) -> None:
    """Show the conversation as the models see it."""
    turns = list(enumerate(context.conversation.turns, start=1))
    shown = turns[-whole_number(argument, "N", len(turns)) :]
    texts = [f"{number} > {turn.question}\n{turn.reply.text if turn.reply else ''}" for number, turn in shown]
    system = f"system: {context.conversation.system}\n" if context.conversation.system and len(shown) == len(turns) else ""
    context.info(system + "\n".join(texts))


def _position(context: ChatContext) -> str:
    turns = context.conversation.turns
    if not turns:
        return "at the beginning of the conversation"
    return f"after turn {len(turns)}: {shorten(turns[-1].question)}"


def _nothing_undone(context: ChatContext) -> str:
    return "" if context.conversation.undone else "nothing was undone"


def _no_branches(context: ChatContext) -> str:
    return "" if context.conversation.leaves else "there is no message yet"


_command = partial(ChatCommand, topic="conversation")
COMMANDS = (
    _command("system", "show or change the system prompt", _system, "[TEXT|off]"),
    _command("undo", "go back one turn, or N", _undo, "[N]", _turn_numbers, unavailable_reason=why_no_reply),
    _command("redo", "take back an undo", _redo, unavailable_reason=_nothing_undone),
    _command("regen", "answer the last message again", _regen, unavailable_reason=why_no_message),
    _command(
        "edit",
        "change the message of turn N, or the last, and send it again",
        _edit,
        "[N:] [TEXT]",
        _turn_numbers,
        unavailable_reason=why_no_reply,
    ),
    _command("continue", "continue a reply that was cut off", _continue, unavailable_reason=_not_partial),
    _command("branch", "start a new branch after turn N", _branch, "N", _turn_numbers, unavailable_reason=why_no_reply),
    _command("branches", "list the branches, or go to one", _branches, "[N]", _branch_numbers, unavailable_reason=_no_branches),
    _command("history", "show the conversation, or its last N turns", _history, "[N]", unavailable_reason=why_no_reply),
    _command("reset", "start over with the same system prompt", _reset),
)
