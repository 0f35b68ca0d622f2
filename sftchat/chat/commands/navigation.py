"""Commands that move in the conversation tree; nodes are never deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from sftchat.chat.commands.arguments import shorten, whole_number, why_no_message, why_no_reply
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.errors import UsageError
from sftchat.text import pluralize

if TYPE_CHECKING:
    from sftchat.chat.conversation import Conversation, Turn


def _show_or_set_system(context: ChatContext, argument: str) -> None:
    if not argument:
        context.info(context.conversation.system or "no system prompt; /system TEXT sets one")
    elif argument == "off":
        context.conversation = context.conversation.with_system("")
        context.info("no system prompt from the next message on")
    else:
        context.conversation = context.conversation.with_system(argument)
        context.info("system prompt set, from the next message on")


def _reset_conversation(context: ChatContext, argument: str) -> None:
    has_turns = bool(context.conversation.turns)
    context.conversation = context.conversation.reset()
    system = "; the system prompt stays" if context.conversation.system else ""
    context.info(f"the conversation starts again{system}{'; /branches leads back' if has_turns else ''}")


def _undo_turns(context: ChatContext, argument: str) -> None:
    context.conversation = context.conversation.undo(whole_number(argument, "N", 1))
    context.info(_describe_position(context))


def _redo_turns(context: ChatContext, argument: str) -> None:
    context.conversation = context.conversation.redo()
    context.info(_describe_position(context))


def _regenerate(context: ChatContext, argument: str) -> None:
    """Generate the last reply again; also repeats failed attempts."""
    conversation, focus = context.conversation, context.focus
    turn = conversation.turns[-1] if conversation.turns else None
    # a failed attempt at the head is not in turns
    answer = turn.answer if turn is not None and turn.id == conversation.head else None
    if answer is not None and not context.sampling.temperature:
        same_settings = (answer.model, answer.adapter, answer.sampling) == (focus.name, focus.adapter, context.sampling)
        if same_settings:
            context.info("greedy: the model will say the same; '/set temperature 0.7' lets it vary")
    context.generate(conversation.unanswered())


def _edit_message(context: ChatContext, argument: str) -> None:
    """Send another text in place of an earlier message, on a new branch."""
    conversation = context.conversation
    # "3: text", "3" alone, or a text for the last message; any argument matches
    typed_number, text = re.fullmatch(r"(?:(\d+)(?::|$)\s*)?(.*)", argument, re.DOTALL).groups()  # type: ignore[union-attr]
    turn = _turn_at(conversation, whole_number(typed_number or "", "N", len(conversation.turns)))
    if text:
        question = conversation.node(conversation.node(turn.id).parent)
        context.generate(conversation.go(question.parent).ask(text))
    elif not context.prefill_input(f"/edit {f'{typed_number}: ' if typed_number else ''}{turn.question}"):
        raise UsageError("the new text is missing: /edit N: TEXT")


def _turn_at(conversation: Conversation, number: int) -> Turn:
    """Return a turn by number, from 1.

    Raises:
        UsageError: When there is no such turn.
    """
    if number > len(conversation.turns):
        raise UsageError(f"there is no turn {number}: the conversation has {len(conversation.turns)}")
    return conversation.turns[number - 1]


def _continue_reply(context: ChatContext, argument: str) -> None:
    conversation = context.conversation
    context.generate(conversation.unanswered(), dict(enumerate(conversation.path[-1].answers)))


def _why_not_continuable(context: ChatContext) -> str:
    """Return why the last reply cannot be continued."""
    path = context.conversation.path
    if not path or not path[-1].answers:
        return "there is no reply yet"
    return "" if any(answer.partial for answer in path[-1].answers) else "the reply is complete; only one that was cut can go on"


def _start_branch(context: ChatContext, argument: str) -> None:
    """Go back to the end of a turn, to start a new branch there."""
    conversation = context.conversation
    number = whole_number(argument, "N", minimum=0)
    context.conversation = conversation.go(_turn_at(conversation, number).id if number else 0)
    context.info(f"{_describe_position(context)}; what you say next is a new branch")


def _list_or_go_to_branch(context: ChatContext, argument: str) -> None:
    conversation = context.conversation
    if argument:
        number = whole_number(argument, "N")
        if number > len(conversation.leaves):
            raise UsageError(f"there is no branch {number}: the conversation has {len(conversation.leaves)}")
        context.conversation = conversation.go(conversation.leaves[number - 1])
        context.info(_describe_position(context))
        return
    lines = []
    for number, leaf in enumerate(conversation.leaves, start=1):
        turns = conversation.turns_to(leaf)
        last_turn = f"{shorten(turns[-1].question)} → {shorten(turns[-1].reply.text)}" if turns and turns[-1].reply else "no reply"
        lines.append(f"{'*' if leaf == conversation.head else ' '} {number}  {pluralize(len(turns), 'turn')}: {last_turn}")
    context.info("\n".join(lines))


def _complete_branch(context: ChatContext, argument: str) -> Iterable[str]:
    return [str(number) for number in range(1, len(context.conversation.leaves) + 1)]


def _complete_turn(context: ChatContext, argument: str) -> Iterable[str]:
    return [str(number) for number in range(1, len(context.conversation.turns) + 1)]


def _show_history(context: ChatContext, argument: str) -> None:
    """Show the last turns as the models see them; with all turns, the system prompt too."""
    turns = context.conversation.turns
    first = max(0, len(turns) - whole_number(argument, "N", len(turns)))
    lines = [f"system: {context.conversation.system}"] if context.conversation.system and not first else []
    for number, turn in enumerate(turns[first:], start=first + 1):
        lines.append(f"{number} > {turn.question}\n{turn.reply.text if turn.reply else ''}")
    context.info("\n".join(lines))


def _describe_position(context: ChatContext) -> str:
    turns = context.conversation.turns
    if not turns:
        return "at the beginning of the conversation"
    return f"after turn {len(turns)}: {shorten(turns[-1].question)}"


def _why_no_redo(context: ChatContext) -> str:
    return "" if context.conversation.undone else "nothing was undone"


def _why_no_branch(context: ChatContext) -> str:
    return "" if context.conversation.leaves else "there is no message yet"


_command = partial(ChatCommand, topic="conversation")
COMMANDS = (
    _command("system", "show or change the system prompt", _show_or_set_system, "[TEXT|off]"),
    _command("undo", "go back one turn, or N", _undo_turns, "[N]", _complete_turn, unavailable_reason=why_no_reply),
    _command("redo", "take back an undo", _redo_turns, unavailable_reason=_why_no_redo),
    _command("regen", "answer the last message again", _regenerate, unavailable_reason=why_no_message),
    _command(
        "edit",
        "change the message of turn N, or the last, and send it again",
        _edit_message,
        "[N:] [TEXT]",
        _complete_turn,
        unavailable_reason=why_no_reply,
    ),
    _command("continue", "continue a reply that was cut off", _continue_reply, unavailable_reason=_why_not_continuable),
    _command("branch", "start a new branch after turn N", _start_branch, "N", _complete_turn, unavailable_reason=why_no_reply),
    _command(
        "branches", "list the branches, or go to one", _list_or_go_to_branch, "[N]", _complete_branch, unavailable_reason=_why_no_branch
    ),
    _command("history", "show the conversation, or its last N turns", _show_history, "[N]", unavailable_reason=why_no_reply),
    _command("reset", "start over with the same system prompt", _reset_conversation),
)
